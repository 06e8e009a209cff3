"""The callback that leaves the finetuned model as a Hugging Face checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning

from coincide_pl.models.loading import save_checkpoint


class ExportModel(lightning.Callback):
    """At the end of a fit, writes the model and its processor for `from_pretrained`."""

    def __init__(self, directory: str | None = None) -> None:
        """Keeps the place.

        Args:
            directory: where (default: `model` in the trainer's `default_root_dir`).
        """
        self.directory = directory

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes the checkpoint directory, from one process."""
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        module: Any = pl_module
        directory = self.directory or Path(trainer.default_root_dir) / "model"
        save_checkpoint(directory, module.merge(), module.processor)
