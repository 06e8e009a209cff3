"""Finished runs as W&B's files keep them: folders `offline-run-…`, from whatever machine.

`fit` and `test` are two runs of W&B. A test belongs to the fit that left the model which it tested:
both note the model's fingerprint, wherever it lay. The last fit of a directory and the last test of
its model count, as they do in the directory itself.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from coincide_pl.errors import CoincideError
from coincide_pl.evaluation.results import Results
from coincide_pl.files import UNUSABLE
from coincide_pl.reporting.config import parse_config
from coincide_pl.reporting.costs import Costs
from coincide_pl.reporting.runs import FinishedRun
from coincide_pl.reporting.tracking.log_file import Log, read_log

STAGES = ("fit", "test", "validate", "predict")
CONFIG = {"directory", "inputs", "selection", *(f"{stage}_config" for stage in STAGES)}
SUMMARY = {"trained", "costs", "tested"}
"""Names in a run's config and summary that `LogToWandb` writes and that are read here."""
OUTCOMES = "outcomes.jsonl"
"""File beside the log of a test, in `files`, with the worth of each answer."""


def find_logs(path: Path) -> list[Path]:
    """Find the logs that a path stands for.

    Args:
        path: a log, the folder of a run of W&B, or a folder that holds some, itself or in `wandb`.
    """
    if path.is_file():
        return [path] if path.suffix == ".wandb" else []
    places = (f"{above}{run}" for above in ("", "wandb/") for run in ("offline-run-*/", "run-*/"))
    return sorted(log for place in ("", *places) for log in path.glob(f"{place}run-*.wandb"))


def load_offline(paths: Iterable[Path]) -> tuple[list[FinishedRun], list[str]]:
    """Read logs, and put each fit together with its test.

    Args:
        paths: paths of logs.

    Returns:
        The finished runs, and for each other one why it is left out.
    """
    unique = {path.resolve(): path for path in paths}
    logs = sorted((read_log(p, CONFIG, SUMMARY) for p in unique.values()), key=lambda x: x.start)
    fits = {_place(log): log for log in logs if "trained" in log.summary}
    tests = {_left(log): log for log in logs if "tested" in log.summary}
    found: list[FinishedRun] = []
    left_out: dict[tuple[str, str], str] = {}
    done = set()
    for place, log in fits.items():
        if test := tests.get(_left(log)):
            done |= {place, _place(test)}
            try:
                found.append(_finished(log, test))
            except CoincideError as error:
                left_out[place] = str(error)
    # A line for each other run; what broke off comes first, unless it was done in another attempt.
    ended = {(_place(log), _stage(log)) for log in logs if _left(log)}
    for log in sorted(logs, key=lambda log: bool(_left(log))):
        place, stage = _place(log), _stage(log)
        again = not _left(log) and (place, stage) in ended
        if place not in done and not again and (reason := _reason(log, stage)):
            left_out.setdefault(place, reason)
    return found, list(left_out.values())


def _finished(fit: Log, test: Log) -> FinishedRun:
    """A fit and the test of what it left, put together.

    Raises:
        CoincideError: they do not note what a comparison needs.
    """
    try:
        noted = fit.summary.get("costs", {"seconds": {}, "whole": False})
        seconds = {str(stage): float(s) for stage, s in noted["seconds"].items()}
        return FinishedRun.of(
            fit.path,
            test.path.parent / "files" / OUTCOMES,
            Results.of(test.summary["tested"]),
            parse_config(fit.config["fit_config"]),
            fit.config["selection"],
            fit.config["inputs"]["model"],
            Costs(seconds, bool(noted["whole"])),
        )
    except UNUSABLE as error:
        raise CoincideError(
            f"{fit.path}: it, or {test.path}, lacks what a comparison needs ({error})"
        ) from error


def _reason(log: Log, stage: str | None) -> str | None:
    """Why a log is of no finished run; None for stages that a comparison does not look for."""
    if _left(log):
        other = "fit of the model that it tested" if stage == "test" else "test of what it trained"
        return f"{log.path}: no {other} is there"
    if stage in ("predict", "validate"):
        return None
    if log.damage:
        return log.damage
    if stage is None:
        return f"{log.path}: neither of a fit nor of a test"
    if log.ended:
        return f"{log.path}: it notes no result of its {stage}; name the run's directory instead"
    return f"{log.path}: its {stage} did not come to its end"


def _stage(log: Log) -> str | None:
    """The stage that a log is of, if it is one of ours."""
    return next((stage for stage in STAGES if f"{stage}_config" in log.config), None)


def _place(log: Log) -> tuple[str, str]:
    """The run's directory on its machine."""
    return log.host, str(log.config.get("directory", log.path))


def _left(log: Log) -> str:
    """Fingerprint of the model that a fit left or that was tested; empty where there is none."""
    noted = log.summary.get("trained") or log.summary.get("tested")
    return str(noted.get("model", "") if isinstance(noted, dict) else noted or "")
