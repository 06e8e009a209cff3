"""The training checkpoint that an interrupted fit goes on from."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import lightning
from lightning.pytorch.callbacks import ModelCheckpoint

SHARE = 0.02
"""Of the time, what saving may take."""
SECONDS = 10.0
"""Between checkpoints at least."""


class LastCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint, as fresh as saving it at most 2 % of the time allows."""

    def __init__(self, directory: str | Path) -> None:
        """Keeps the place.

        Args:
            directory: folder for `last.ckpt`.
        """
        super().__init__(
            dirpath=directory,
            filename="last",
            train_time_interval=timedelta(seconds=SECONDS),
            enable_version_counter=False,
        )

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        begin = time.perf_counter()
        super()._save_checkpoint(trainer, filepath)
        spent = time.perf_counter() - begin
        self._train_time_interval = timedelta(seconds=max(SECONDS, spent / SHARE))
