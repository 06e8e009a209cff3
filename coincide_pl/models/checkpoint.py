"""The training checkpoint that an interrupted fit goes on from."""

from __future__ import annotations

import time
import zipfile
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from lightning.pytorch.utilities.types import STEP_OUTPUT

from coincide_pl.data.collation import Batch
from coincide_pl.errors import ModelError
from coincide_pl.files import beside
from coincide_pl.interruption import interruption

SHARE = 0.02
"""How much of the time saving may take."""
SECONDS = 10.0
"""How long the time between two checkpoints is at least."""
Checkpoint = dict[str, Any]
"""What Lightning keeps of a training: the states of the module, the optimizer, the loops, ..."""


class LastCheckpoint(ModelCheckpoint):
    """Keeps one checkpoint, as fresh as saving it at most 2 % of the time allows."""

    def __init__(self, directory: str | Path) -> None:
        """Sets how often a checkpoint is saved.

        Args:
            directory: folder for `last.ckpt`.
        """
        super().__init__(
            dirpath=directory,
            filename="last",
            train_time_interval=timedelta(seconds=SECONDS),
            enable_version_counter=False,
        )

    @property
    def state_key(self) -> str:
        """The name of this callback's state, whatever the time between checkpoints has become."""
        return type(self).__qualname__

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: STEP_OUTPUT,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Saves when it is time, and at once where the command is about to end.

        Only after a whole optimizer step: gradients of a part of one are in no checkpoint.
        """
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        if interruption.agreed:
            self._train_time_interval = timedelta(0)
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def _save_checkpoint(self, trainer: lightning.Trainer, filepath: str) -> None:
        begin = time.perf_counter()
        super()._save_checkpoint(trainer, filepath)
        spent = time.perf_counter() - begin
        self._train_time_interval = timedelta(seconds=max(SECONDS, spent / SHARE))


class EpochCheckpoints(ModelCheckpoint):
    """Keeps a checkpoint of every epoch, `checkpoints/epoch-N.ckpt` in the run, counted from 0.

    With each, the mean learning rate of its epoch, by which LESS weighs checkpoints.
    """

    def __init__(self) -> None:
        """Keeps all of them."""
        super().__init__(
            filename="epoch-{epoch}",
            auto_insert_metric_name=False,
            save_top_k=-1,
            every_n_epochs=1,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )
        self.epoch, self.rates, self.steps = -1, 0.0, 0

    @property
    def state_key(self) -> str:
        """The name of this callback's state in a checkpoint."""
        return type(self).__qualname__

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Finds the folder, wherever the logger's is."""
        self.dirpath = str(Path(trainer.default_root_dir) / "checkpoints")
        super().setup(trainer, pl_module, stage)

    def on_before_optimizer_step(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        """Adds the learning rate of the step, of the parameters that have no own."""
        if trainer.current_epoch != self.epoch:
            self.epoch, self.rates, self.steps = trainer.current_epoch, 0.0, 0
        self.rates += float(optimizer.param_groups[0]["lr"])
        self.steps += 1

    def state_dict(self) -> dict[str, Any]:
        """The epoch, the sum of its learning rates, and its steps."""
        return {"epoch": self.epoch, "rates": self.rates, "steps": self.steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on with them."""
        self.epoch, self.rates = state_dict["epoch"], state_dict["rates"]
        self.steps = state_dict["steps"]


class Checkpoints(TorchCheckpointIO):
    """Reads and writes training checkpoints: whole or not at all, and never with code in them."""

    def save_checkpoint(
        self, checkpoint: Checkpoint, path: str | Path, storage_options: Any = None
    ) -> None:
        """Writes a file beside its place (Lightning's goes through `/tmp`), then puts it there."""
        if "://" in str(path):
            super().save_checkpoint(checkpoint, path, storage_options)
            return
        with beside(path) as aside:
            try:
                with aside.open("wb") as file:
                    torch.save(checkpoint, file)
            except RuntimeError as error:  # of the writer in C++; what the disk said comes before
                raise (
                    error.__context__ if isinstance(error.__context__, OSError) else error
                ) from None

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> Checkpoint:
        """Reads a file; nothing in it is executed, whatever it asks for.

        Raises:
            ModelError: it is damaged, or holds more than tensors and plain values.
        """
        try:
            if "://" not in str(path):
                with zipfile.ZipFile(path) as file:
                    if bad := file.testzip():  # torch does not look at the checksums
                        raise zipfile.BadZipFile(bad)
            found: Checkpoint = super().load_checkpoint(path, map_location, weights_only=True)
            return found
        except FileNotFoundError:
            raise ModelError(f"{path}: no such training checkpoint") from None
        except Exception as error:
            raise ModelError(
                f"{path}: not a training checkpoint, or a damaged one; delete it to train afresh"
            ) from error
