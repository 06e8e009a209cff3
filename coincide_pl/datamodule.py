"""The DataModule: records, encoder and selector become loaders.

It stands outside the rooms because it joins three of them; it is the only place where selection
meets training.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import lightning
import numpy as np
import torch
import yaml
from lightning.pytorch.trainer.states import TrainerFn

from coincide_pl.data.batches import (
    BatchSampler,
    Plan,
    Size,
    left_to_do,
    plan_in_order,
    plan_shuffled,
)
from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import Encoder, SystemText
from coincide_pl.data.image_states import images_digest
from coincide_pl.data.lengths import expected_lengths, rough_lengths
from coincide_pl.data.loader import BatchLoader, usable_workers
from coincide_pl.data.probe import encoding_digests
from coincide_pl.data.readers import Reader
from coincide_pl.data.records import Records
from coincide_pl.errors import ConfigError, DataError, SelectionError
from coincide_pl.files import write_text
from coincide_pl.machines import check_alike, check_shared, on_first_of_each_machine
from coincide_pl.models.recipe import ACCUMULATED, PROCESSES, check_goes_on, recipe
from coincide_pl.models.sharding import SHARDED
from coincide_pl.processes import on_first_process
from coincide_pl.selection import Selection, Selector
from coincide_pl.selection.pools import SignalSources
from coincide_pl.selection.selector import target_count
from coincide_pl.selection.stored import check_given, count_asked, is_as_asked, select_into

ImagesBy = Literal["time", "content"]
READS = {
    "fit": ("train", "val"),
    "validate": ("val",),
    "test": ("test",),
    "predict": ("train",),
    "select": ("train",),
}
"""Which data each stage reads; it can't do without the first."""
RECORDS = {"train": "records", "val": "val_records", "test": "test_records"}
"""Where the records of some data are, once they are read."""


class InstructionData(lightning.LightningDataModule):
    """Instruction data from which a selector chooses; the target is trained on the choice.

    The selection is a file, made on one process and used again while nothing that it depends on
    changes: data, signals, selector and its hyperparameters, fraction.
    """

    records: Records
    val_records: Records
    test_records: Records
    encoder: Encoder

    def __init__(
        self,
        train: Reader | None = None,
        val: Reader | None = None,
        test: Reader | None = None,
        selector: Selector | None = None,
        fraction: float | None = None,
        signals: str | list[str] | None = None,
        selection: str | None = None,
        reference: str | None = None,
        layers: list[int] | None = None,
        batch_size: int = 8,
        eval_batch_size: int | None = None,
        max_tokens: int | None = None,
        eval_max_tokens: int | None = None,
        max_length: int = 2048,
        image_token: str | None = None,
        num_workers: int = 0,
        image_cache: int = 0,
        cache_dir: str = "~/.cache/coincide_pl",
        seed: int = 0,
        images_by: ImagesBy = "time",
        system_text: SystemText = "template",
    ) -> None:
        """Checks what can be checked without reading the data.

        Args:
            train: data that are chosen from, trained on, and read by `predict`.
            val: data for the validation loss.
            test: questions whose generated answers are scored.
            selector: the method that chooses; without one, `selection` must exist, or all data are
                used.
            fraction: share of the data to choose, in (0, 1] (default: all of it, with a warning).
            signals: directory of per-sample signals, which `predict` writes and selectors read, or
                its address, such as `s3://bucket/signals`, which fsspec opens; or a list of these,
                where a selector needs signals of several models.
            selection: path of the selection file (default: `selection.safetensors` in the run's
                directory).
            reference: checkpoint that the signals must come from (default: any).
            layers: decoder layers that the signals must hold (default: any).
            batch_size: conversations per process and step in training.
            eval_batch_size: conversations per process and step in validation, test and predict
                (default: `batch_size`).
            max_tokens: tokens per process and step in training, in place of `batch_size`; padding
                and images count, as far as they can be told from the length of a text.
            eval_max_tokens: tokens per process and step in validation, test and predict, in place
                of `eval_batch_size`.
            max_length: tokens of a conversation at most, images included; longer ones are cut.
            image_token: token whose place image features take, for a processor that does not name
                it.
            num_workers: worker processes that read and encode, per training process; at most one
                for each core is started.
            image_cache: MiB of processed images that each worker keeps in memory, for data whose
                images are few and small.
            cache_dir: folder for the records in memory-mapped form, and for copies of signals that
                lie at an address.
            seed: seed of the order in training.
            images_by: what tells `predict` whether an image is still the same: its size and `time`
                of change, or its `content`, which is read once more but can be copied elsewhere.
            system_text: where system texts go: into the chat `template`, and a record whose system
                text it does not take stops the run; or, where it takes none, in front of the first
                `question`.

        Raises:
            SelectionError: a fraction outside (0, 1].
            DataError: sizes that are not positive.
        """
        super().__init__()
        target_count(1.0 if fraction is None else fraction, 1 << 62)
        for name, value in (
            ("batch_size", batch_size),
            ("eval_batch_size", eval_batch_size or 1),
            ("max_tokens", max_tokens or 1),
            ("eval_max_tokens", eval_max_tokens or 1),
            ("max_length", max_length),
        ):
            if value is None or value < 1:
                raise DataError(f"{name}: {value} must be at least 1")
        self.readers = {"train": train, "val": val, "test": test}
        self.selector, self.fraction = selector, fraction
        self.signals, self.selection_path = signals, selection
        self.reference, self.layers = reference, layers
        self.size = Size(batch_size, max_tokens)
        self.eval_size = Size(eval_batch_size or batch_size, eval_max_tokens)
        self.image_token = image_token
        self.max_length, self.num_workers = max_length, num_workers
        self.image_cache = image_cache
        self.cache_dir, self.seed = cache_dir, seed
        self.images_by: ImagesBy = images_by
        self.system_text: SystemText = system_text
        self.rows_done: np.ndarray | None = None
        self.rows_answered: np.ndarray | None = None
        self.selection: Selection | None = None
        self.signals_read: dict[str, str] = {}  # fingerprints by directory
        if val is None:
            self.val_dataloader = None  # type: ignore[method-assign, assignment]

    def setup(self, stage: str) -> None:
        """Reads the records that a stage needs; for `fit` and `select`, chooses among them.

        The first process does what is done once, and every process learns how it went; so it is
        here, not in `prepare_data`, whose errors the others never hear of. Without a trainer,
        `select` is possible.

        Args:
            stage: `fit`, `validate`, `test`, `predict` or `select`.

        Raises:
            CoincideError: a reader, a signal or a trainer is missing, or data can't be used.
        """
        stage = str(getattr(stage, "value", stage))  # Lightning's is an enumeration
        first, *_ = READS[stage]
        if self.readers[first] is None:
            raise DataError(f"data.{first}: {stage} needs a reader there")
        several = self.trainer is not None and self.trainer.num_nodes > 1
        if several:
            check_shared(self._written(stage))
        on_first_process(lambda: self._read(stage))
        if several:  # each may have a `cache_dir` of its own
            on_first_of_each_machine(lambda: self._read(stage))
        self._read(stage)
        if several:
            read = [name for name in READS[stage] if self.readers[name] is not None]
            check_alike({f"data.{one}": getattr(self, RECORDS[one]).fingerprint for one in read})
        if stage in ("fit", "select"):
            if self.selector or self.selection_path:
                self.selection = self._select()
            elif (self.fraction or 1) < 1:
                raise SelectionError(
                    f"data.fraction: nothing chooses {self.fraction} of the data; name a selector "
                    "(data.selector), or a selection file (data.selection)"
                )
        if stage != "select":
            self.encoder = self._encoder(stage)
        if stage == "fit":
            self.images = on_first_process(self.images_state)
            self.encoding = encoding_digests(self.encoder)

    def select(self) -> Selection:
        """Chooses among the training records, without a trainer too.

        What data the choice was made from is noted beside the selection file, in `data.yaml`, for
        `report` and `subset`.

        Returns:
            The selection that `selection` names, made anew where it is not what is asked for.

        Raises:
            CoincideError: there is neither a selector nor a selection, or it can't be made.
        """
        if self.selector is None and self.selection_path is None:
            raise ConfigError("data.selector: there is none, nor a selection")
        self.setup("select")
        reader = self.readers["train"]
        assert self.selection is not None
        assert reader is not None
        noted = {"train": reader.config, "signals": self.signals, "cache_dir": self.cache_dir}
        config = {"data": {"class_path": "coincide_pl.InstructionData", "init_args": noted}}
        write_text(self.selection_file.with_name("data.yaml"), [yaml.safe_dump(config)])
        return self.selection

    def _read(self, stage: str) -> None:
        for name in READS[stage]:
            if (reader := self.readers[name]) is not None:
                setattr(self, RECORDS[name], reader.records(self.cache_dir))

    def _written(self, stage: str) -> dict[str, Path]:
        """Folders in which one process of a stage finds what another one has written."""
        assert self.trainer is not None
        found = {"trainer.default_root_dir": Path(self.trainer.default_root_dir)}
        if stage == "predict" and isinstance(self.signals, str) and "://" not in self.signals:
            found["data.signals"] = Path(self.signals).expanduser()
        if stage in ("fit", "select") and self.selection_path:
            found["data.selection"] = Path(self.selection_path).parent
        return found

    def _select(self) -> Selection:
        """The selection asked for: the file's, where it has it already, or else a new one."""
        path, selector = self.selection_file, self.selector
        if selector is None:
            on_first_process(lambda: check_given(path, self.records.fingerprint, len(self.records)))
            return Selection.load(path)
        count = count_asked(selector, self.fraction, len(self.records))
        if not on_first_process(
            lambda: is_as_asked(path, selector, self._sources.pool(selector), count)
        ):
            device = None if self.trainer is None else self.trainer.strategy.root_device
            select_into(path, selector, self._sources.pool(selector, device), count)
        return Selection.load(path)

    @property
    def selection_file(self) -> Path:
        """Where the selection lies, or will.

        Raises:
            ConfigError: there is neither a name nor a run for it.
        """
        if self.selection_path:
            return Path(self.selection_path)
        if self.trainer is None:
            raise ConfigError("data.selection: name a file; without a trainer there is no run")
        return Path(self.trainer.default_root_dir) / "selection.safetensors"

    @property
    def _sources(self) -> SignalSources:
        """The stores that `signals` names, for these records."""
        named = [self.signals] if isinstance(self.signals, str) else self.signals or []
        return SignalSources(
            named,
            self.records,
            self.images_state,
            self.reference,
            self.layers,
            self.signals_read,
            self.cache_dir,
        )

    def images_state(self, by: str | None = None) -> str:
        """A digest of the training records' images, after what was looked at and a colon.

        Args:
            by: `time` or `content` (default: as the option says).
        """
        by = by or self.images_by
        return f"{by}:{images_digest(self.records, by == 'content')}"

    def signal(self, name: str, reader: str) -> np.ndarray:
        """A signal of the training records, memory-mapped, [N, ...].

        Args:
            name: of the signal.
            reader: who needs it, as an error message should say.

        Raises:
            SelectionError: `data.signals` names no directory that holds it.
            SignalsError: the store there is unfinished, damaged, or of other data.
        """
        return self._sources.signal(name, reader)

    def _encoder(self, stage: str) -> Encoder:
        """Turns conversations into tokens, in the way of the trainer's module."""
        if self.trainer is None:
            raise ConfigError(
                f"InstructionData.setup({stage!r}): needs a trainer, whose module brings the "
                "processor: call the trainer with datamodule=..., or setup('select')"
            )
        module = self.trainer.lightning_module
        make: type[Encoder] = getattr(module, "encoder_class", Encoder)
        named = {"image_token": self.image_token, "system_text": self.system_text}
        known = inspect.signature(make).parameters  # CLIP's has no template
        options: dict[str, Any] = {name: value for name, value in named.items() if name in known}
        return make(module.processor, self.max_length, **options)

    def train_dataloader(self) -> BatchLoader:
        """The chosen rows, shuffled anew each epoch."""
        rows = None if self.selection is None else self.selection.indices

        def plan(epoch: int) -> Plan:
            return plan_shuffled(
                self._lengths(self.records, self.size),
                self.records.image_counts > 0,
                self.size,
                seed=self.seed,
                epoch=epoch,
                rows=rows,
            )

        assert self.trainer is not None
        return self._loader(
            self.records,
            plan,
            even=True,
            batches_per_step=self.trainer.accumulate_grad_batches,
            limit=self.trainer.limit_train_batches,
        )

    def val_dataloader(self) -> BatchLoader:
        """All validation rows."""
        plan = self._in_order(self.val_records)
        return self._loader(self.val_records, lambda _: plan, even=True)

    def test_dataloader(self) -> BatchLoader:
        """The prompts of all test rows, but for batches all of whose rows are answered."""
        plan = self._left(self.test_records, self.rows_answered)
        return self._loader(self.test_records, lambda _: plan, even=False, prompts=True)

    def predict_dataloader(self) -> BatchLoader:
        """All training rows in fixed batches, but for batches all of whose rows are done."""
        plan = self._left(self.records, self.rows_done)
        return self._loader(self.records, lambda _: plan, even=False)

    def _left(self, records: Records, done: np.ndarray | None) -> Plan:
        assert self.trainer is not None
        return left_to_do(self._in_order(records), done, self.trainer.world_size)

    def _in_order(self, records: Records) -> Plan:
        lengths = self._lengths(records, self.eval_size)
        return plan_in_order(lengths, records.image_codes, self.eval_size)

    def _lengths(self, records: Records, size: Size) -> np.ndarray:
        """In tokens, int64 [N]; exact enough for batches of that kind of size."""
        if size.tokens is None:
            return rough_lengths(records)
        return expected_lengths(records, self.encoder, self.max_length)

    def _loader(
        self,
        records: Records,
        plan: Callable[[int], Plan],
        even: bool,
        prompts: bool = False,
        batches_per_step: int = 1,
        limit: int | float = 1.0,
    ) -> BatchLoader:
        trainer = self.trainer
        assert trainer is not None
        return BatchLoader(
            EncodedBatches(
                records,
                self.encoder,
                prompts,
                self.image_cache << 20,
                blanks=isinstance(trainer.strategy, SHARDED) and not prompts,
                rewritings=getattr(trainer.lightning_module, "rewritings", ()),
            ),
            BatchSampler(plan, trainer.global_rank, trainer.world_size, even),
            batches_per_step,
            limit,
            num_workers=usable_workers(self.num_workers),
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """Fingerprints of what a training checkpoint was trained on, and the options of its plan.

        The loader counts a process's batches; `SameSteps` counts them anew for other processes.
        """
        assert self.trainer is not None
        chosen = None if self.selection is None else self.selection.fingerprint
        plan = {
            "data.batch_size": self.size.rows,
            "data.max_tokens": self.size.tokens,
            "data.max_length": self.max_length,
            "data.image_token": self.image_token,
            "data.seed": self.seed,
            ACCUMULATED: self.trainer.accumulate_grad_batches,
            PROCESSES: self.trainer.world_size,
            **{f"the {part} (its digest)": digest for part, digest in self.encoding.items()},
        }
        return {
            "data": self.records.fingerprint,
            "images": self.images,
            "selection": chosen,
            "recipe": recipe(plan),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses to go on with a fit of other data or images, or of another plan of batches.

        Raises:
            SelectionError: the checkpoint was trained on other data or another selection.
            DataError: images have changed.
            ConfigError: options that the plan depends on were others.
        """
        assert self.trainer is not None
        if self.trainer.state.fn != TrainerFn.FITTING:
            return
        check_goes_on(
            self.trainer.default_root_dir, state_dict, self.state_dict(), self.images_state
        )
