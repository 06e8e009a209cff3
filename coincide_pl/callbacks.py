"""Callbacks of every run: it ends between batches, and warns of conversations that were cut."""

from __future__ import annotations

import logging
from typing import Any

import lightning
import torch

from coincide_pl.data.collation import Batch
from coincide_pl.interruption import interruption

log = logging.getLogger(__name__)


class WarnTruncated(lightning.Callback):
    """Counts cut conversations in the first epoch of a fit, in a test or a predict, and says so.

    In a fit, it counts those without a token to train on, too: nothing of their answers is left, or
    they have none. They take no part in a batch's loss.
    """

    cut = empty = seen = 0
    told = False

    def _count(self, *args: Any, **kwargs: Any) -> None:
        batch: Batch = args[3]
        self.cut += batch.num_truncated
        self.empty += batch.num_unlabeled
        self.seen += len(batch.rows)

    on_train_batch_end = on_test_batch_end = on_predict_batch_end = _count

    def _tell(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        counts = torch.tensor([self.cut, self.empty, self.seen], device=pl_module.device)
        cut, empty, seen = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        self.cut = self.empty = self.seen = 0
        if cut and not self.told and trainer.is_global_zero:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            length = data.encoder.max_length
            why = "data.max_length" if length == data.max_length else "as many as the model reads"
            log.warning("%d of %d conversations were cut at %d tokens (%s)", cut, seen, length, why)
        if empty and trainer.training and not self.told and trainer.is_global_zero:
            log.warning(
                "%d of %d conversations have no answer left to train on, and were left out",
                *(empty, seen),
            )
        self.told = True

    on_train_epoch_end = on_test_epoch_end = on_predict_epoch_end = _tell


class EndBetweenBatches(lightning.Callback):
    """Lets a batch come to its end, with all that is written of it, before the command ends."""

    def _begin(self, *args: Any, **kwargs: Any) -> None:
        interruption.check()
        interruption.batches(True)

    on_train_batch_start = on_validation_batch_start = _begin
    on_test_batch_start = on_predict_batch_start = _begin

    def _end(self, *args: Any, **kwargs: Any) -> None:
        interruption.batches(False)
        interruption.check()

    on_train_end = on_validation_end = on_test_end = on_predict_epoch_end = _end

    def on_exception(self, *args: Any, **kwargs: Any) -> None:
        """There is nothing more to come to its end."""
        interruption.batches(False)
