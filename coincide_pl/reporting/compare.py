"""Compare finished runs: scores by task, relative performance, wall-clock; over several seeds."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rich.console import Console

from coincide_pl.errors import CoincideError
from coincide_pl.files import write_text
from coincide_pl.reporting import tables
from coincide_pl.reporting.bootstrap import paired_difference
from coincide_pl.reporting.figure import draw, draw_fractions, draw_pareto
from coincide_pl.reporting.runs import START, FinishedRun, is_run
from coincide_pl.reporting.tracking.offline import find_logs, load_offline

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """What one method came to at one fraction.

    Attributes:
        name: as it is shown.
        method: without the fraction.
        fraction: of the data.
        runs: one per seed.
        scores: by task, [seeds], in [0, 1].
        mean: over the tasks, [seeds].
        relative: mean over tasks of score / the score on all data, [seeds].
        difference: to the random choice of as many, in relative performance, with the ends of its
            95 % interval; None where there is none, or the answers are not kept.
        seconds: by stage, mean over the seeds, with what the selection rests on.
    """

    name: str
    method: str
    fraction: float
    runs: list[FinishedRun]
    scores: dict[str, np.ndarray]
    mean: np.ndarray
    relative: np.ndarray
    difference: tuple[float, float, float] | None
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())

    @property
    def whole(self) -> bool:
        """Whether all stages are known that the selection rests on."""
        return all(run.whole for run in self.runs)


def compare(runs: list[str], output: str = "comparison") -> None:
    """Compare tested runs by their directories, or by W&B's files of them: a table, and figures.

    Runs of one method, with the same options and fraction, are seeds of one row; if they have the
    same seed too, the signals that they read tell them apart. One of them must have been on all
    data: relative performance refers to it. A run that was not tested is left out and named.

    Args:
        runs: directories (`trainer.default_root_dir`) of runs that were fitted and tested; or
            W&B's files: `run-….wandb`, the folder `offline-run-…` of one, or one with several.
        output: folder for `comparison.csv`, `.md`, `.tex`, `.png`, `pareto.png`, and
            `fractions.png` where there are several.

    Raises:
        CoincideError: runs differ in data, start or recipe, or there is none on all data.
    """
    found, left_out = load(runs)
    rows = compared(found)
    folder = Path(output)
    parts = [tables.scores(rows), tables.times(rows)]
    write_text(folder / "comparison.csv", tables.csv_text(rows))
    write_text(folder / "comparison.md", "\n".join(part.markdown() for part in parts))
    write_text(folder / "comparison.tex", "\n".join(part.latex() for part in parts))
    draw(rows, folder / "comparison.png")
    names = ["comparison.csv", "comparison.md", "comparison.tex", "comparison.png"]
    if any(row.seconds for row in rows):
        draw_pareto(rows, folder / "pareto.png")
        names.append("pareto.png")
    if len({row.fraction for row in rows if row.fraction < 1}) > 1:
        draw_fractions(rows, folder / "fractions.png")
        names.append("fractions.png")
    console = Console(width=None if sys.stdout.isatty() else 140)
    for part in parts:
        console.print(part.rich())
    for reason in [*(f"left out: {reason}" for reason in left_out), *unknown(found)]:
        console.print(reason, soft_wrap=True)
    console.print("wrote " + ", ".join(str(folder / name) for name in names), soft_wrap=True)


def load(paths: Sequence[str]) -> tuple[list[FinishedRun], list[str]]:
    """Read the runs' directories, and W&B's files.

    Returns:
        The finished runs, and for each other one why it is left out.
    """
    found, left_out, logs = [], [], []
    places: list[Path] = []
    for path in map(Path, dict.fromkeys(paths)):
        if path.is_dir() and is_run(path):
            places.append(path)
            try:
                found.append(FinishedRun.load(path))
            except CoincideError as error:
                left_out.append(str(error))
        elif own := find_logs(path):
            logs += own
            places += own
        elif path.exists():
            left_out.append(f"{path}: neither the directory of a run nor W&B's files of one")
        else:
            left_out.append(f"{path}: no such directory or file")
    offline, others = load_offline(logs)
    found = sorted([*found, *offline], key=lambda run: places.index(run.place))
    left_out += others
    if not found:
        raise CoincideError(f"no finished run: {'; '.join(left_out) or 'none is named'}")
    return found, left_out


def unknown(runs: Sequence[FinishedRun]) -> list[str]:
    """What the tables can't say of some runs, in a line each."""
    told = {
        "no difference to Random without the worth of each answer": [
            run.answers for run in runs if not run.answers.is_file()
        ],
        "no wall-clock is noted": [run.place for run in runs if not run.seconds],
    }
    return [
        f"{what}: {paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}"
        for what, paths in told.items()
        if paths
    ]


def compared(runs: Sequence[FinishedRun]) -> list[Row]:
    """Group runs into rows and relate them to those on all data.

    Returns:
        Rows by fraction, then in the order in which their runs are given; all data last.

    Raises:
        CoincideError: see `compare`.
    """
    check(runs)
    runs = _apart(runs)
    groups: dict[tuple[str, str, float], list[FinishedRun]] = {}
    for run in runs:
        key = (run.selector, repr(sorted(run.options.items())), round(run.fraction, 4))
        for other in groups.setdefault(key, []):
            if other.seed == run.seed:
                raise CoincideError(
                    f"{run.place}: the same choice and seed as {other.place}; name one"
                )
        groups[key].append(run)
    whole = [key for key in groups if key[2] == 1]
    if not whole:
        raise CoincideError("none of the runs is on all data, which relative performance needs")
    base = _scores(groups[whole[0]])
    full = {task: float(values.mean()) for task, values in base.items()}
    nothing = [task for task, score in full.items() if score <= 0]
    if len(nothing) == len(full):
        raise CoincideError(f"{groups[whole[0]][0].place}: 0 in every task; nothing was learned")
    if nothing:
        log.warning("relative leaves out where all data score 0: %s", ", ".join(nothing))
        full = {task: score for task, score in full.items() if score > 0}
    random = {key[2]: group for key, group in groups.items() if key[0] == "Random"}
    rows = []
    for key, group in sorted(groups.items(), key=lambda item: item[0][2]):
        scores = _scores(group)
        ratios = [scores[task] / score for task, score in full.items()]
        timed = [run.seconds for run in group if run.seconds]
        stages = dict.fromkeys(stage for seconds in timed for stage in seconds)
        method = _method(group[0], runs)
        rows.append(
            Row(
                method if key[2] == 1 else f"{method} {100 * key[2]:.3g} %",
                method,
                key[2],
                group,
                scores,
                np.mean(list(scores.values()), 0),
                np.mean(ratios, 0),
                None if key[0] == "Random" else _difference(group, random.get(key[2], []), full),
                {s: float(np.mean([seconds.get(s, 0.0) for seconds in timed])) for s in stages},
            )
        )
    return rows


def check(runs: Sequence[FinishedRun]) -> None:
    """Refuse to compare what differs in more than the choice of data.

    Raises:
        CoincideError: it says in what, and which.
    """
    first = runs[0]
    for run in runs[1:]:
        where = f"{run.place} can't be compared with {first.place}:"
        if (run.questions, run.counts) != (first.questions, first.counts):
            raise CoincideError(f"{where} tested on other questions")
        if run.data != first.data:
            raise CoincideError(f"{where} chosen from other training data")
        names = dict.fromkeys([*first.recipe, *run.recipe])
        if run.start and first.start:
            names.pop(START, None)
            if run.start != first.start:
                a, b = run.recipe.get(START), first.recipe.get(START)
                raise CoincideError(f"{where} its start is {a}, not {b}, which holds other weights")
        apart = [name for name in names if run.recipe.get(name) != first.recipe.get(name)]
        if apart:
            told = (f"{n} is {run.recipe.get(n)}, not {first.recipe.get(n)}" for n in apart)
            raise CoincideError(f"{where} {'; '.join(told)}")


def _apart(runs: Sequence[FinishedRun]) -> list[FinishedRun]:
    """Signals count as an option where one choice and seed is there with several."""
    read: dict[tuple[str, str, float, int], set[str]] = {}
    for run in runs:
        key = (run.selector, repr(sorted(run.options.items())), round(run.fraction, 4), run.seed)
        read.setdefault(key, set()).add(run.signals)
    several = {key[0] for key, names in read.items() if len(names) > 1}
    return [
        replace(run, options={**run.options, "signals": run.signals})
        if run.selector in several
        else run
        for run in runs
    ]


def _scores(group: list[FinishedRun]) -> dict[str, np.ndarray]:
    return {task: np.array([run.scores[task] for run in group]) for task in group[0].scores}


def _difference(
    group: list[FinishedRun], random: list[FinishedRun], full: dict[str, float]
) -> tuple[float, float, float] | None:
    """To the random runs of the same seeds."""
    theirs = {run.seed: run.correct for run in random}
    pairs = [(run.correct, theirs.get(run.seed)) for run in group]
    both = [(a, b) for a, b in pairs if a is not None and b is not None]
    if not both:
        return None
    return paired_difference([a for a, _ in both], [b for _, b in both], full)


def _method(run: FinishedRun, runs: Sequence[FinishedRun]) -> str:
    """The selector's name, and the options in which those of its kind differ."""
    alike = [other.options for other in runs if other.selector == run.selector]
    apart = [n for n in run.options if any(o.get(n) != run.options[n] for o in alike)]
    told = ", ".join(f"{name}={run.options[name]}" for name in apart)
    return f"{run.selector} ({told})" if told else run.selector
