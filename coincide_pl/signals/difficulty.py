"""The callback that leaves the difficulties that a score net learned as a signals store."""

from __future__ import annotations

import hashlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import lightning
import numpy as np

from coincide_pl.files import beside
from coincide_pl.signals.store import Manifest, SignalsWriter


class WriteDifficulty(lightning.Callback):
    """At the end of a fit, writes the signal `difficulty` of all training records."""

    def __init__(self, directory: str | None = None) -> None:
        """Keeps the place.

        Args:
            directory: the store; one that is there is replaced (default: `signals` in the trainer's
                `default_root_dir`).
        """
        self.directory = directory

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes the store beside its place, then puts it there, from one process."""
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        module: Any = pl_module
        values = module.difficulty()
        manifest = Manifest(
            data=data.records.fingerprint,
            num_rows=len(values),
            model=module.fingerprint,
            layers=[],
            settings={"values": hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()},
            signals={"difficulty": ([], "float32")},
            versions={name: version(name) for name in ("coincide-pl", "torch", "transformers")},
        )
        target = Path(self.directory or Path(trainer.default_root_dir) / "signals")
        with beside(target) as aside:
            SignalsWriter.create(aside, manifest)
            writer = SignalsWriter(aside, manifest)
            writer.write(np.arange(len(values)), {"difficulty": values})
            writer.close()
            SignalsWriter.finish(aside)
