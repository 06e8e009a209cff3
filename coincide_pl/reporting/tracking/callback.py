"""The callback that logs a run's inputs, selection and scores to Weights & Biases."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from netrc import NetrcParseError, netrc
from pathlib import Path
from urllib.parse import urlparse

import lightning
from lightning.pytorch.loggers import Logger, WandbLogger

from coincide_pl.data.served import served
from coincide_pl.datamodule import InstructionData
from coincide_pl.errors import CoincideError
from coincide_pl.evaluation.inputs import Inputs
from coincide_pl.evaluation.results import ANSWERS, RESULTS
from coincide_pl.files import run_directory, write_text
from coincide_pl.models.hub import reachable
from coincide_pl.reporting.config import read_config
from coincide_pl.reporting.costs import costs
from coincide_pl.reporting.note_inputs import inputs_of
from coincide_pl.reporting.tracking.offline import OUTCOMES

PACKAGES = ("coincide-pl", "lightning", "torch", "transformers", "faiss-cpu", "faiss-gpu", "peft")
"""Packages whose versions are logged."""
RUN_ID = ".wandb_id"
"""File in a run's directory with the id of its fit's run of W&B."""


class LogToWandb(lightning.Callback):
    """Logs what a run was made of, its selection file (an artifact), and its test scores.

    In the run's config stands what it was made of: `git` revision of the working directory,
    `versions` of packages, the run's `directory`, `fingerprints` of the data, the selection and the
    model started from, `inputs` (see `NoteInputs`), and how the `selection` was made. In its
    summary stand, of a fit, its `costs` and the fingerprint of the model that it left (`trained`);
    of a test, the scores, and what `results.json` holds (`tested`). The scores are a table too, and
    the worth of each answer a file: enough for `compare` without the directory.
    """

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Logs revision, versions and directory."""
        logger = wandb_logger(trainer)
        if logger is not None:
            made_of = {
                "git": git_revision(),
                "versions": versions(),
                "directory": str(Path(trainer.default_root_dir).resolve()),
            }
            logger.experiment.config.update(made_of, allow_val_change=True)

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Logs what is trained, and the selection that it is trained on."""
        logger = wandb_logger(trainer)
        if logger is None:
            return
        run = logger.experiment
        read = inputs_of(trainer, pl_module)
        inputs = {"model": read.model, "signals": read.signals}
        run.config.update({"inputs": inputs}, allow_val_change=True)
        data = served(trainer)
        if not isinstance(data, InstructionData) or data.selection is None:
            return
        import wandb

        selection = data.selection
        artifact = wandb.Artifact(
            f"selection-{selection.fingerprint[:12]}",
            "selection",
            metadata=selection.description,
        )
        artifact.add_file(str(data.selection_file))
        if run.settings.mode == "online":
            run.use_artifact(artifact)  # logged, and marked as what this run rests on
        else:
            run.log_artifact(artifact)  # W&B knows of uses only when it is online
        made_from = {"selection": selection.fingerprint, **selection.made_from}
        made_from["model"] = str(pl_module.fingerprint)
        noted = {"fingerprints": made_from, "selection": selection.description}
        run.config.update(noted, allow_val_change=True)

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Notes which run of W&B this is, for a later start that goes on."""
        logger = wandb_logger(trainer)
        if logger is not None:
            write_text(Path(trainer.default_root_dir) / RUN_ID, [str(logger.experiment.id)])

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Logs the fingerprint of the model that the fit has left, for its tests to be found."""
        logger = wandb_logger(trainer)
        fitted = Inputs.load(Path(trainer.default_root_dir))
        if logger is not None and fitted is not None and fitted.trained is not None:
            logger.experiment.summary["trained"] = fitted.trained

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Logs the scores as a table, with what they were scored on, and each answer's worth."""
        logger = wandb_logger(trainer)
        if logger is None:
            return
        scores = {
            name.removeprefix("test/"): float(value)
            for name, value in trainer.callback_metrics.items()
            if name.startswith("test/")
        }
        logger.log_table("results", columns=list(scores), data=[list(scores.values())])
        root, run = Path(trainer.default_root_dir), logger.experiment
        target = Path(run.dir) / OUTCOMES
        write_text(target, outcomes(root / ANSWERS))
        run.save(str(target), base_path=run.dir, policy="now")
        run.summary["tested"] = json.loads((root / RESULTS).read_text())


def outcomes(answers: Path) -> Iterator[str]:
    """Yield task and outcome of each line of answers, as JSON, without what they say."""
    with answers.open() as lines:
        for line in lines:
            answer = json.loads(line)
            yield json.dumps({name: answer[name] for name in ("task", "outcome")}) + "\n"


def log_costs(trainer: lightning.Trainer) -> None:
    """Log a fit's wall-clock by stage, with what its selection rests on, once it has ended."""
    logger = wandb_logger(trainer)
    if logger is None:
        return
    folder = Path(trainer.default_root_dir)
    with suppress(CoincideError):  # a damaged file of an earlier run; `compare` names it
        spent = costs(folder, read_config(folder / "fit.yaml"))
        logger.experiment.summary["costs"] = asdict(spent)


def versions() -> dict[str, str]:
    """Versions of the packages in `PACKAGES` that are installed."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def git_revision() -> str | None:
    """Git revision of the working directory, with `-dirty` where files differ, if it has one."""
    try:
        words = ["git", "describe", "--always", "--abbrev=40", "--match=", "--dirty"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def wandb_logger(trainer: lightning.Trainer) -> WandbLogger | None:
    """The trainer's W&B logger, on the one process that logs."""
    if not trainer.is_global_zero or run_directory(trainer) is None:
        return None
    return next((log for log in trainer.loggers if isinstance(log, WandbLogger)), None)


def resumed(root: Path, given: str | None) -> dict[str, str]:
    """Options of a W&B logger with which a fit that goes on from a checkpoint goes on in its run.

    Args:
        root: directory of the run.
        given: id of a run of W&B that the config names.

    Returns:
        `id` and `resume`; nothing where the config or W&B's agent names a run, or none is noted, or
        the fit has no checkpoint to go on from.
    """
    noted = root / RUN_ID
    if given or "WANDB_RUN_ID" in os.environ or not noted.is_file():
        return {}
    name = noted.read_text(errors="replace").strip()
    return {"id": name, "resume": "allow"} if name and any(root.rglob("*.ckpt")) else {}


def finish(loggers: list[Logger], status: int) -> None:
    """End the runs of W&B loggers: the next verb in this process has its own, and files are whole.

    Args:
        loggers: loggers of the trainer.
        status: exit status to log, 0 where the verb came to its end.
    """
    used = [one for one in loggers if isinstance(one, WandbLogger) and one._experiment is not None]
    for logger in used:
        logger.experiment.finish(status)
    if used:
        import wandb

        wandb.teardown()  # it waits until all is written


def without_deprecated(logger: WandbLogger) -> None:
    """Keeps Lightning from passing an option that W&B warns of, though nobody set it."""
    logger._wandb_init.pop("anonymous", None)


def go_offline_if_needed() -> None:
    """Without a key or a network, let W&B keep its files here: nothing fails, waits or asks."""
    os.environ.setdefault("WANDB_SILENT", "true")
    if "WANDB_MODE" in os.environ:
        return
    server = urlparse(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    host = server.hostname or "api.wandb.ai"
    if not (os.environ.get("WANDB_API_KEY") or _saved_key(host)) or not reachable(
        host, server.port or (443 if server.scheme == "https" else 80)
    ):
        os.environ["WANDB_MODE"] = "offline"


def _saved_key(host: str) -> bool:
    try:
        return (
            netrc(os.environ.get("NETRC", Path.home() / ".netrc")).authenticators(host) is not None
        )
    except (OSError, NetrcParseError, RuntimeError):
        return False
