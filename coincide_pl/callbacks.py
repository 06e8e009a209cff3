"""Callbacks of every run: it ends between batches, says how far it is, and warns of cuts."""

from __future__ import annotations

import json
import logging
import math
import sys
from typing import Any

import lightning
import torch

from coincide_pl.data.collation import Batch
from coincide_pl.data.served import served
from coincide_pl.errors import DataError
from coincide_pl.interruption import interruption
from coincide_pl.models.recipe import ACCUMULATED
from coincide_pl.progress import Lines

log = logging.getLogger(__name__)


class WarnTruncated(lightning.Callback):
    """Counts conversations that are cut, in the first epoch of a fit, test or predict, and warns.

    In a fit it also counts those without a token to train on: nothing of their answers is left, or
    they have none. They take no part in a batch's loss. Where all are so, the fit is an error.
    """

    cut = empty = seen = 0
    has_warned = has_trained = False

    def state_dict(self) -> dict[str, bool]:
        """Whether something has been trained on so far."""
        return {"has_trained": self.has_trained}

    def load_state_dict(self, state_dict: dict[str, bool]) -> None:
        """Goes on from what a checkpoint says."""
        self.has_trained = state_dict["has_trained"]

    def _count(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        self.cut += batch.num_truncated
        self.empty += batch.num_unlabeled
        self.seen += len(batch.rows)
        self.has_trained |= batch.num_unlabeled < len(batch.rows)

    on_train_batch_end = on_test_batch_end = on_predict_batch_end = _count

    def _warn(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        own = [self.cut, self.empty, self.seen, self.has_trained]
        counts = torch.tensor(own, device=pl_module.device)
        cut, empty, seen, trained = trainer.strategy.reduce(counts, reduce_op="sum").tolist()
        self.cut = self.empty = self.seen = 0
        if cut and not self.has_warned and trainer.is_global_zero:
            data = served(trainer)
            length = data.encoder.max_length
            why = "data.max_length" if length == data.max_length else "as many as the model reads"
            log.warning("%d of %d conversations were cut at %d tokens (%s)", cut, seen, length, why)
        if trainer.training and not trained:
            error = DataError(
                f"data.max_length: {served(trainer).max_length} tokens leave no conversation an "
                "answer to train on; give more, or data with answers"
            )
            error.shared = True  # of the counts of all processes
            raise error
        if empty and trainer.training and not self.has_warned and trainer.is_global_zero:
            log.warning(
                "%d of %d conversations have no answer left to train on, and were left out",
                *(empty, seen),
            )
        self.has_warned = True

    on_train_epoch_end = on_test_epoch_end = on_predict_epoch_end = _warn


class ProgressLines(lightning.Callback):
    """Logs now and then how far an epoch of a stage has come, where output is no terminal."""

    lines: Lines | None = None

    def on_train_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begins with an epoch of `fit`."""
        self._begin(trainer, f"fit, epoch {trainer.current_epoch}", trainer.num_training_batches)

    def on_test_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begins with `test`."""
        self._begin(trainer, "test", sum(trainer.num_test_batches))

    def on_predict_epoch_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Begins with `predict`."""
        self._begin(trainer, "predict", sum(trainer.num_predict_batches))

    def _begin(self, trainer: lightning.Trainer, step: str, batches: float) -> None:
        shown = trainer.is_global_zero and not sys.stderr.isatty()
        self.lines = Lines(step, batches) if shown else None

    def _advance(self, *args: object, **kwargs: object) -> None:
        if self.lines is not None:
            self.lines.advance(1)

    on_train_batch_end = on_test_batch_end = on_predict_batch_end = _advance


class SameSteps(lightning.Callback):
    """Lets a fit go on with another number of processes, after the same optimizer steps.

    Lightning and the loader count a process's batches. A step has as many batches in all as before,
    so a process has more or fewer of them.
    """

    def on_load_checkpoint(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        checkpoint: dict[str, Any],
    ) -> None:
        """Counts the batches as if the training had had the processes of now."""
        data = checkpoint.get(type(served(trainer)).__qualname__, {})
        before = json.loads(data.get("recipe", {}).get(ACCUMULATED, "0"))
        now = trainer.accumulate_grad_batches
        if before in (0, now):
            return
        loop = checkpoint["loops"]["fit_loop"]
        progress = loop["epoch_loop.batch_progress"]
        done = progress["current"]["processed"]
        more = math.ceil(done / before) * now - done
        for counts in (progress["total"], progress["current"]):
            counts.update({name: count + more for name, count in counts.items()})
        for loader in loop["state_dict"].get("combined_loader", []):
            loader["batches"] = loader["batches"] // before * now


class EndBetweenBatches(lightning.Callback):
    """Lets a batch come to its end, with all that is written of it, before the command ends."""

    def on_train_batch_start(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Ends the command where all processes have agreed to."""
        if interruption.agreed:
            interruption.check()
        interruption.batches(True)

    def on_train_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: object,
        batch: Batch,
        batch_idx: int,
    ) -> None:
        """Has all processes agree to end, if one is asked to, after whole optimizer steps only.

        Gradients of a part of a step are in no checkpoint. A signal reaches the processes one after
        the other, and none may leave a step early: the others would wait for it, and save nothing.
        """
        if (batch_idx + 1) % trainer.accumulate_grad_batches and not trainer.is_last_batch:
            return
        own = interruption.asked is not None
        interruption.agreed = trainer.strategy.reduce_boolean_decision(own, all=False)
        if interruption.agreed:
            interruption.ask()

    def _begin(self, *args: object, **kwargs: object) -> None:
        interruption.check()
        interruption.batches(True)

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = _begin

    def _end(self, *args: object, **kwargs: object) -> None:
        interruption.batches(False)
        interruption.check()

    on_train_end = on_validation_end = on_test_end = on_predict_epoch_end = _end

    def on_exception(self, *args: object, **kwargs: object) -> None:
        """An error ends the batches, too: the command may end at once."""
        interruption.batches(False)
