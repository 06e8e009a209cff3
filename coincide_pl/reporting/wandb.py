"""What a run leaves in Weights & Biases: configs, the selection, the table of results."""

from __future__ import annotations

import os
import socket
from netrc import NetrcParseError, netrc
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import lightning
from lightning.pytorch.loggers import WandbLogger


class LogToWandb(lightning.Callback):
    """Puts the selection file (an artifact) and the test scores (a table) in the run."""

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
        logger.experiment.log_artifact(artifact)

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
