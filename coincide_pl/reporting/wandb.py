"""What a run leaves in Weights & Biases: configs, the selection, the table of results."""

from __future__ import annotations

import os
import socket
import subprocess
from contextlib import suppress
from importlib import metadata
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import lightning
from lightning.pytorch.loggers import WandbLogger

PACKAGES = ("coincide-pl", "lightning", "torch", "transformers", "faiss-cpu", "faiss-gpu", "peft")
"""Packages whose versions are noted."""


class LogToWandb(lightning.Callback):
    """Puts in the run what it was made of, the selection file (an artifact), and the test scores.

    What it was made of, in the run's config: `git` revision of the working directory, `versions` of
    packages, and `fingerprints` of the data and of the model started from. The scores are a table,
    and the run's summary.
    """

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Logs revision and versions."""
        logger = wandb_logger(trainer)
        if logger is not None:
            made_of = {"git": git_revision(), "versions": versions()}
            logger.experiment.config.update(made_of, allow_val_change=True)

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Logs the selection that is trained on."""
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        selection = getattr(data, "selection", None)
        logger = wandb_logger(trainer)
        if selection is None or logger is None:
            return
        import wandb

        artifact = wandb.Artifact(
            f"selection-{selection.fingerprint[:12]}",
            "selection",
            metadata={"selector": selection.selector, "made_from": selection.made_from},
        )
        artifact.add_file(str(data.selection_file))
        run = logger.experiment
        if run.settings.mode == "online":
            run.use_artifact(artifact)  # logged, and marked as what this run rests on
        else:
            run.log_artifact(artifact)  # W&B knows of uses only when it is online
        module: Any = pl_module
        made_from = {"selection": selection.fingerprint, **selection.made_from}
        made_from["model"] = module.fingerprint
        run.config.update({"fingerprints": made_from}, allow_val_change=True)

    def on_test_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Logs the scores as a table."""
        logger = wandb_logger(trainer)
        if logger is not None:
            scores = {
                name.removeprefix("test/"): float(value)
                for name, value in trainer.callback_metrics.items()
                if name.startswith("test/")
            }
            rows: list[Any] = [list(scores.values())]
            logger.log_table("results", columns=list(scores), data=rows)


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def git_revision() -> str | None:
    """Of the working directory, with `-dirty` where files differ; None outside a repository."""
    try:
        words = ["git", "describe", "--always", "--abbrev=40", "--match=", "--dirty"]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def wandb_logger(trainer: lightning.Trainer) -> WandbLogger | None:
    """The trainer's W&B logger, on the one process that logs."""
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return None
    return next((log for log in trainer.loggers if isinstance(log, WandbLogger)), None)


def finish(loggers: list[Any]) -> None:
    """Ends the runs of W&B loggers, so that the next verb in the same process has its own."""
    for logger in loggers:
        if isinstance(logger, WandbLogger) and logger._experiment is not None:
            logger._experiment.finish()


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
    if not (os.environ.get("WANDB_API_KEY") or _saved_key(host)) or not _reachable(
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


def _reachable(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return False
    return True
