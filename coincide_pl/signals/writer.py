"""The callbacks that write signals stores: what `predict` computes, and what a fit learned."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, cast

import lightning
import numpy as np
import numpy.typing as npt
from torch import Tensor

from coincide_pl.data.collation import Batch
from coincide_pl.data.probe import encoding_digests
from coincide_pl.data.served import ServedData, served
from coincide_pl.errors import ConfigError, SignalsError
from coincide_pl.files import beside, check_replaced
from coincide_pl.processes import on_first_process
from coincide_pl.signals.difficulty import Difficulty
from coincide_pl.signals.filling import SignalsWriter
from coincide_pl.signals.forward import ModelFacts
from coincide_pl.signals.manifest import Manifest, StoredSignal
from coincide_pl.signals.signal import Signal


class SignalsSource(Protocol):
    """A module whose `predict_step` gives rows of signals.

    Attributes:
        fingerprint: of its checkpoint.
        settings: its options that change the rows, by name.
        signals: what it makes.
        facts: sizes of the model.
    """

    fingerprint: str
    settings: dict[str, Any]
    signals: list[Signal]
    facts: ModelFacts


class DifficultySource(Protocol):
    """A module with a score net.

    Attributes:
        fingerprint: of its checkpoint.
    """

    fingerprint: str

    def difficulty(self) -> npt.NDArray[np.float32]:
        """The difficulty [N] of all training records."""


def manifest_of(
    data: ServedData,
    model: str,
    images: str,
    settings: dict[str, Any],
    signals: Sequence[Signal],
    facts: ModelFacts,
) -> Manifest:
    """The manifest of a store of all training records."""
    return Manifest(
        data=data.records.fingerprint,
        num_rows=len(data.records),
        model=model,
        images=images,
        encoding=encoding_digests(data.encoder),
        settings={"max_length": data.max_length, **settings},
        signals={signal.name: StoredSignal.of(signal, facts) for signal in signals},
        versions={name: version(name) for name in ("coincide-pl", "torch", "transformers")},
    )


class WriteSignals(lightning.Callback):
    """Writes each predicted batch at once, from any number of processes; done rows are skipped."""

    def __init__(self, directory: str) -> None:
        """Names the store.

        Args:
            directory: the store; a new one, or one that an earlier run of the same began.
        """
        self.directory = directory
        self.writer: SignalsWriter | None = None

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Creates or resumes the store, and tells the DataModule which rows it holds."""
        if stage != "predict":
            return
        data, module = served(trainer), cast(SignalsSource, pl_module)
        manifest = manifest_of(
            data,
            module.fingerprint,
            on_first_process(data.images_state),
            {"precision": str(trainer.precision), **module.settings},
            module.signals,
            module.facts,
        )
        on_first_process(lambda: SignalsWriter.create(self.directory, manifest))
        self.writer = SignalsWriter(self.directory, manifest, trainer.global_rank)
        data.rows_done = self.writer.done

    def on_predict_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: dict[str, Tensor],
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Writes the rows of a batch."""
        assert self.writer is not None
        values = {name: value.cpu().numpy() for name, value in outputs.items()}
        self.writer.write(batch.rows.cpu().numpy(), values)

    def on_predict_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Seals the store when every process is through all batches."""
        assert self.writer is not None
        self.writer.close()
        trainer.strategy.barrier("signals written")
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        on_first_process(lambda: self._finish(served(trainer)))

    def _finish(self, data: ServedData) -> None:
        """Seals the store.

        Raises:
            SignalsError: rows are missing, or images changed while they were read.
        """
        assert self.writer is not None
        if data.images_state() != self.writer.manifest.images:
            raise SignalsError(
                f"{self.directory}: images changed while they were read; delete it and predict "
                "again"
            )
        SignalsWriter.finish(self.directory)

    def on_exception(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        exception: BaseException,
    ) -> None:
        """Notes what is written, before the run ends early."""
        if self.writer is not None:
            with suppress(SignalsError):  # what went wrong before says more
                self.writer.close()


def writers(trainer: lightning.Trainer) -> list[lightning.Callback]:
    """The writer that a run of `predict` needs and that its trainer was not given.

    Args:
        trainer: whose DataModule may name a directory for signals.

    Raises:
        ConfigError: it names several.
    """
    directory = getattr(served(trainer), "signals", None)
    if not trainer.predicting or directory is None:
        return []
    if any(isinstance(one, WriteSignals) for one in trainer.callbacks):  # type: ignore[attr-defined]
        return []
    if not isinstance(directory, str):
        raise ConfigError("data.signals: predict writes one directory, not a list of them")
    return [WriteSignals(directory)]


class WriteDifficulty(lightning.Callback):
    """At the end of a fit, writes the signal `difficulty` of all training records."""

    def __init__(self, directory: str | None = None) -> None:
        """Names the store.

        Args:
            directory: the store; one of this signal that is there is replaced (default: `signals`
                in the trainer's `default_root_dir`).
        """
        self.directory = directory

    def on_train_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Refuses to begin where the store would take the place of something else.

        Raises:
            FileError: naming the place.
        """
        on_first_process(lambda: check_replaced(self._target(trainer), f"{Difficulty.name}.npy"))

    def on_fit_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        """Writes the store beside its place, then puts it there, from one process."""
        if trainer.fast_dev_run or not trainer.is_global_zero:  # type: ignore[attr-defined]
            return
        module = cast(DifficultySource, pl_module)
        values = module.difficulty()
        settings = {"values": hashlib.blake2b(values.tobytes(), digest_size=16).hexdigest()}
        signal = Difficulty()
        data = served(trainer)
        images = data.images_state()
        manifest = manifest_of(data, module.fingerprint, images, settings, [signal], ModelFacts())
        with beside(self._target(trainer)) as aside:
            SignalsWriter.create(aside, manifest)
            writer = SignalsWriter(aside, manifest)
            writer.write(np.arange(len(values)), {signal.name: values})
            writer.close()
            SignalsWriter.finish(aside)

    def _target(self, trainer: lightning.Trainer) -> Path:
        return Path(self.directory or Path(trainer.default_root_dir) / "signals")
