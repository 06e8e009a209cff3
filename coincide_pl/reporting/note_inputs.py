"""The callback that notes what a fit starts from, what it has read, and what it leaves."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import lightning

from coincide_pl.data.served import served
from coincide_pl.evaluation.inputs import Inputs
from coincide_pl.files import run_directory
from coincide_pl.models import adapters
from coincide_pl.models.export import ExportModel
from coincide_pl.models.loading import checkpoint_fingerprint


class NoteInputs(lightning.Callback):
    """Notes in `inputs.json` what a fit starts from and has read, and in the end what it leaves.

    The last of these tells whether results that lie there are of the weights that lie there.
    """

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Writes the file, from one process."""
        root = run_directory(trainer)
        if root is not None and trainer.is_global_zero:
            inputs_of(trainer, pl_module).save(root)

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes it again, once the model is exported."""
        root = run_directory(trainer)
        left = trained_model(trainer)
        if root is not None and trainer.is_global_zero and left is not None:
            # Adapters alone can't be tested: who tests them has folded them in, elsewhere.
            alone = (left / adapters.CONFIG).is_file()
            trained = "unknown" if alone else checkpoint_fingerprint(str(left))
            replace(inputs_of(trainer, pl_module), trained=trained).save(root)


def inputs_of(trainer: lightning.Trainer, module: lightning.LightningModule) -> Inputs:
    """What a fit starts from, and the signals that its selector and its model have read so far."""
    data = served(trainer)
    chosen = getattr(data, "selection", None)
    return Inputs(
        getattr(module, "fingerprint", None),
        dict(getattr(data, "signals_read", {})),
        None if chosen is None else chosen.fingerprint,
    )


def trained_model(trainer: lightning.Trainer) -> Path | None:
    """The checkpoint directory that a fit has left, if it has."""
    callbacks: list[lightning.Callback] = getattr(trainer, "callbacks", [])
    named = next((one.directory for one in callbacks if isinstance(one, ExportModel)), None)
    directory = Path(named or Path(trainer.default_root_dir) / "model")
    return directory if directory.is_dir() else None
