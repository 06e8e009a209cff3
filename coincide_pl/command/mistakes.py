"""Exceptions of libraries that a config can cause, each as one line."""

from __future__ import annotations

import traceback

import lightning
import torch
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from coincide_pl.errors import ConfigError
from coincide_pl.models import TargetModule

LIBRARIES = ("lightning", "torch.optim", "torchmetrics", "jsonargparse", "fsspec", "wandb")
"""Where an exception that is raised is about what the library was asked for."""


def as_mistake(error: Exception) -> ConfigError | None:
    """The line for an exception that the user can mend.

    Args:
        error: as it was raised.

    Returns:
        None where it may be a fault of this package's, whose traceback is needed.
    """
    if isinstance(error, torch.OutOfMemoryError):
        return line("the device's memory is full; try a smaller data.batch_size", error)
    frames = [
        frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)
    ]
    where = frames[-1] if frames else ""
    theirs = any(where == name or where.startswith(f"{name}.") for name in LIBRARIES)
    if theirs or isinstance(error, MisconfigurationException | ImportError):
        return line("", error)
    return None


def check_trainer(
    trainer: lightning.Trainer, module: lightning.LightningModule | None, validates: bool
) -> None:
    """Refuses what a fit would stumble over at its first step or at the end of its epoch.

    Args:
        trainer: as its options made it.
        module: what is trained.
        validates: whether there are validation data.

    Raises:
        ConfigError: a number that can't be, or a callback that monitors what nobody logs.
    """
    if trainer.accumulate_grad_batches < 1:
        raise ConfigError(
            f"trainer.accumulate_grad_batches: {trainer.accumulate_grad_batches} must be at least 1"
        )
    callbacks: list[lightning.Callback] = getattr(trainer, "callbacks", [])
    ours = ("coincide_pl.", "lightning.")
    if not isinstance(module, TargetModule) or not all(
        type(one).__module__.startswith(ours) for one in (module, *callbacks)
    ):
        return  # who knows what a user's own class logs
    parts = ("train", "val") if validates else ("train",)
    known = [f"{part}/{name}" for part in parts for name in ("loss", "token_accuracy")]
    for callback in callbacks:
        monitor = getattr(callback, "monitor", None)
        if isinstance(monitor, str) and monitor not in (*known, "epoch", "step"):
            raise ConfigError(
                f"trainer.callbacks: {type(callback).__name__} monitors {monitor!r}, but this fit "
                f"logs {', '.join(known)}{'' if validates else ' (and val/loss with data.val)'}"
            )


def line(before: str, error: Exception) -> ConfigError:
    """An error's message in one line, the same for all processes of a run.

    Args:
        before: what to say first.
        error: whose message it is.
    """
    text = " ".join(str(error).split()) or type(error).__name__
    mistake = ConfigError(f"{before}: {text}" if before else text)
    mistake.shared = True
    return mistake
