"""The callback that notes what a fit starts from and has read."""

from __future__ import annotations

import lightning

from coincide_pl.data.served import served
from coincide_pl.files import run_directory
from coincide_pl.reporting.inputs import Inputs


class NoteInputs(lightning.Callback):
    """Notes in the run's directory, in `inputs.json`, what a fit starts from and has read."""

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Writes the file, from one process."""
        root = run_directory(trainer)
        if root is not None and trainer.is_global_zero:
            inputs_of(trainer, pl_module).save(root)


def inputs_of(trainer: lightning.Trainer, module: lightning.LightningModule) -> Inputs:
    """What a fit starts from, and the signals that its selector and its model have read so far."""
    read = getattr(served(trainer), "signals_read", {})
    return Inputs(getattr(module, "fingerprint", None), dict(read))
