"""The DataModule: records, encoder and selector become loaders.

It stands outside the rooms because it joins three of them; it is the only place where selection
meets training.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
import torch

from coincide_pl.data.batches import BatchSampler, Plan, Size, plan_in_order, plan_shuffled
from coincide_pl.data.collation import EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.images import open_image
from coincide_pl.data.loader import BatchLoader
from coincide_pl.data.readers import Reader
from coincide_pl.data.records import Record, Records, Turn
from coincide_pl.errors import CoincideError, DataError, SelectionError
from coincide_pl.models.loading import checkpoint_fingerprint
from coincide_pl.models.sharding import SHARDED
from coincide_pl.processes import on_first_process
from coincide_pl.selection import Pool, Selection, Selector
from coincide_pl.selection.cache import Cache, NoCache
from coincide_pl.selection.selector import missing, target_count
from coincide_pl.signals import Signals, SignalsStore

log = logging.getLogger(__name__)

BYTES_PER_TOKEN, TOKENS_PER_IMAGE = 4, 576
"""Rough lengths are enough to put like with like."""
SAMPLED_IMAGES = 16
"""Are looked at to tell how many tokens an image becomes, where batches are filled by tokens."""


class InstructionData(lightning.LightningDataModule):
    """Instruction data from which a selector chooses; the target is trained on the choice.

    The selection is a file, made on one process and used again while nothing that it depends on
    changes: data, signals, selector and its hyperparameters, fraction.
    """

    def __init__(
        self,
        train: Reader | None = None,
        val: Reader | None = None,
        test: Reader | None = None,
        selector: Selector | None = None,
        fraction: float = 1.0,
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
    ) -> None:
        """Checks what can be checked without reading the data.

        Args:
            train: data that are chosen from, trained on, and read by `predict`.
            val: data for the validation loss.
            test: questions whose generated answers are scored.
            selector: chooses; without one, `selection` must exist, or all data are used.
            fraction: share of the data to choose, in (0, 1].
            signals: directory of per-sample signals: `predict` writes it, selectors read it; or a
                list of directories, where a selector needs signals of several models.
            selection: the selection file (default: in the directory of the run).
            reference: checkpoint that the signals must come from; checked when given.
            layers: decoder layers that the signals must hold; checked when given.
            batch_size: conversations per process and step in training.
            eval_batch_size: the same in validation, test and predict (default: as in training).
            max_tokens: in place of `batch_size`, tokens per process and step in training, padding
                and images included, as far as they can be told from the length of a text.
            eval_max_tokens: the same, in place of `eval_batch_size`, in validation, test and
                predict.
            max_length: tokens of a conversation, images included; longer ones are cut.
            image_token: the token whose place image features take, for a processor that does not
                name it.
            num_workers: processes that read and encode, per training process.
            image_cache: MiB of processed images that each of these keeps in memory, for data whose
                images are few and small.
            cache_dir: folder for the records in memory-mapped form.
            seed: of the order in training.

        Raises:
            SelectionError: a fraction outside (0, 1].
            DataError: sizes that are not positive.
        """
        super().__init__()
        target_count(fraction, 1 << 62)
        for name, value in (
            ("batch_size", batch_size),
            ("eval_batch_size", eval_batch_size or 1),
            ("max_tokens", max_tokens or 1),
            ("eval_max_tokens", eval_max_tokens or 1),
            ("max_length", max_length),
        ):
            if value < 1:
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
        self.rows_done: np.ndarray | None = None
        self.rows_answered: np.ndarray | None = None
        self.selection: Selection | None = None
        self.signals_read: dict[str, str] = {}  # fingerprints by directory
        if val is None:
            self.val_dataloader = None  # type: ignore[method-assign, assignment]

    def setup(self, stage: str) -> None:
        """Reads the records the stage needs; for `fit` and `select`, chooses among them.

        The first process does what is done once, and every process learns how it went; so it is
        here, not in `prepare_data`, whose errors the others never hear of.

        Args:
            stage: `fit`, `validate`, `test`, `predict` or `select`.
        """
        wanted = {
            "fit": ("train", "val"),
            "validate": ("val",),
            "test": ("test",),
            "predict": ("train",),
            "select": ("train",),
        }[stage]
        for name in wanted:
            if self.readers[name] is None and name == wanted[0]:
                raise DataError(f"data.{name}: {stage} needs a reader there")
        readers = {name: reader for name in wanted if (reader := self.readers[name]) is not None}
        strategy = self.trainer.strategy  # type: ignore[union-attr]
        on_first_process(strategy, lambda: self._read(readers))
        self._read(readers)
        if stage in ("fit", "select") and (self.selector or self.selection_path):
            path = self.selection_file
            if not on_first_process(strategy, lambda: self._is_there(path)):
                self._choose(path, strategy)
            self.selection = Selection.load(path)
        if stage != "select":
            module: Any = self.trainer.lightning_module  # type: ignore[union-attr]
            make = getattr(module, "encoder_class", Encoder)
            named = {"image_token": self.image_token} if self.image_token else {}
            self.encoder = make(module.processor, self.max_length, **named)

    def _read(self, readers: dict[str, Reader]) -> None:
        for name, reader in readers.items():
            records = reader.records(self.cache_dir)
            setattr(self, "records" if name == "train" else f"{name}_records", records)

    records: Records
    val_records: Records
    test_records: Records

    @property
    def selection_file(self) -> Path:
        """Where the selection lies, or will."""
        if self.selection_path:
            return Path(self.selection_path)
        return Path(self.trainer.default_root_dir) / "selection.safetensors"  # type: ignore[union-attr]

    def _is_there(self, path: Path) -> bool:
        """Whether the selection asked for lies at `path` already."""
        if self.selector is None:
            found = Selection.load(path)
            if found.made_from.get("data") != self.records.fingerprint:
                raise SelectionError(f"{path}: was made from other data than data.train")
            return True
        count = target_count(self.fraction, len(self.records))
        pool = self._pool(self.selector)
        if not path.exists():
            return False
        try:
            found = Selection.load(path)
        except SelectionError as error:
            log.warning("%s: selecting again", error)
            return False
        mine = (self.selector.config, pool.fingerprints, len(pool), count)
        its = (found.selector, found.made_from, found.pool_size, len(found.indices))
        if mine != its:
            log.info("%s: made from something else, selecting again", path)
            return False
        log.info("%s: as asked for, used again", path)
        return True

    def _choose(self, path: Path, strategy: Any) -> None:
        """Selects, by one process or by all, and leaves the selection at `path`."""
        selector = self.selector
        assert selector is not None
        count = target_count(self.fraction, len(self.records))
        pool = self._pool(selector, strategy.root_device)
        chosen: Selection | None = None
        if selector.by_all_processes:
            try:
                chosen = selector.select(pool, count)
            except CoincideError as error:
                error.shared = True  # the data and settings are the same for all
                raise

        def save() -> None:
            (chosen or selector.select(pool, count)).save(path)
            log.info("%s: %d of %d samples", path, count, len(pool))

        on_first_process(strategy, save)

    def _pool(self, selector: Selector, device: torch.device | None = None) -> Pool:
        fingerprints = {"data": self.records.fingerprint}
        if not selector.signals:
            return Pool(self.records, {}, fingerprints)
        stores = self._stores(type(selector).__name__, selector.signals)
        used = [store for store in stores if set(selector.signals) & set(store)]
        if used:  # a store that has no part in it may come and go
            fingerprints["signals"] = " + ".join(map(self._noted, used))
        held = next((s for s in used if "activations" in s), None)
        num_layers = len(held.manifest.layers) or None if held else None
        return Pool(
            self.records,
            Signals(used),
            fingerprints,
            num_layers,
            Cache(used[0].directory / "selection", {}) if used else NoCache(),
            str(device) if device is not None and device.type == "cuda" else "cpu",
        )

    def signal(self, name: str, reader: str) -> np.ndarray:
        """A signal of the training records, memory-mapped.

        Args:
            name: of the signal.
            reader: who needs it, as a message should say.

        Raises:
            SelectionError: `data.signals` names no directory that holds it.
            SignalsError: the store there is unfinished, damaged, or of other data.
        """
        stores = self._stores(reader, (name,))
        if name not in (signals := Signals(stores)):
            raise SelectionError(f"data.signals: {missing(reader, (name,))}")
        self._noted(next(store for store in stores if name in store))
        return signals[name]

    def _noted(self, store: SignalsStore) -> str:
        """A store's fingerprint, kept for what tells of the run."""
        self.signals_read[str(store.directory)] = store.fingerprint
        return store.fingerprint

    def _stores(self, reader: str, needed: Sequence[str]) -> list[SignalsStore]:
        """The stores that `data.signals` names, checked."""
        if not self.signals:
            raise SelectionError(f"data.signals: {missing(reader, needed)}")
        directories = [self.signals] if isinstance(self.signals, str) else self.signals
        stores = [SignalsStore(path, data=self.records.fingerprint) for path in directories]
        for store in stores:
            if "activations" in store or len(stores) == 1:
                model = checkpoint_fingerprint(self.reference) if self.reference else None
                store.check(model=model, layers=self.layers)
        return stores

    def train_dataloader(self) -> BatchLoader:
        """The chosen rows, shuffled anew each epoch."""
        rows = None if self.selection is None else self.selection.indices

        def plan(epoch: int) -> Plan:
            return plan_shuffled(
                self.lengths(self.records, self.size),
                self.records.image_counts > 0,
                self.size,
                seed=self.seed,
                epoch=epoch,
                rows=rows,
            )

        return self._loader(self.records, plan, even=True)

    def val_dataloader(self) -> BatchLoader:
        """All validation rows."""
        return self._loader(self.val_records, self._in_order(self.val_records), even=True)

    def test_dataloader(self) -> BatchLoader:
        """The prompts of all test rows, but for batches all of whose rows are answered."""
        plan = self._left(self.test_records, self.rows_answered)
        return self._loader(self.test_records, plan, even=False, prompts=True)

    def predict_dataloader(self) -> BatchLoader:
        """All training rows in fixed batches, but for batches all of whose rows are done."""
        return self._loader(self.records, self._left(self.records, self.rows_done), even=False)

    def _in_order(self, records: Records) -> Callable[[int], Plan]:
        sizes = self.lengths(records, self.eval_size)
        plan = plan_in_order(sizes, records.image_codes, self.eval_size)
        return lambda epoch: plan

    def _left(self, records: Records, done: np.ndarray | None) -> Callable[[int], Plan]:
        """Batches that are left to do.

        No process is left without one: it would not wait for the others, and a run that was stopped
        after its last batch would not do what comes then.
        """
        assert self.trainer is not None
        plan = self._in_order(records)(0)
        left = [batch for batch in plan if done is None or not done[batch].all()] or plan[-1:]
        left += left[-1:] * (self.trainer.world_size - len(left))
        return lambda epoch: left

    def lengths(self, records: Records, size: Size) -> np.ndarray:
        """Lengths in tokens, int64 [N]; rough where they only put like with like."""
        if size.tokens is None:
            return _lengths(records, TOKENS_PER_IMAGE)
        empty = Record("", (), (Turn("user", "?"), Turn("assistant", "?")))
        frame = len(self.encoder.encode(empty, []).input_ids)
        rough = frame + _lengths(records, self._tokens_per_image(records))
        return np.minimum(rough, self.max_length)

    def _tokens_per_image(self, records: Records) -> int:
        """Of some images spread over the data, the mean."""
        shown = np.flatnonzero(records.image_counts > 0)
        runs = [
            len(self.encoder.encode_image(open_image(records.image_root, path)).tokens)
            for row in shown[:: max(1, len(shown) // SAMPLED_IMAGES)][:SAMPLED_IMAGES]
            for path in records[row].images[:1]
        ]
        return math.ceil(np.mean(runs)) if runs else 0

    def _loader(
        self, records: Records, plan: Callable[[int], Plan], even: bool, prompts: bool = False
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
            ),
            BatchSampler(plan, trainer.global_rank, trainer.world_size, even),
            num_workers=self.num_workers,
            pin_memory=torch.cuda.is_available(),
            persistent_workers=self.num_workers > 0,
        )

    def state_dict(self) -> dict[str, Any]:
        """What a training checkpoint was trained on."""
        chosen = None if self.selection is None else self.selection.fingerprint
        return {"data": self.records.fingerprint, "selection": chosen}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuses to go on with other data.

        Raises:
            SelectionError: the checkpoint was trained on other data or another selection.
        """
        if state_dict != self.state_dict():
            root = self.trainer.default_root_dir  # type: ignore[union-attr]
            raise SelectionError(
                f"{root}: its checkpoint was trained on other data or another selection; "
                "name another trainer.default_root_dir, or delete its checkpoints to start afresh"
            )


def _lengths(records: Records, tokens_per_image: int) -> np.ndarray:
    """Rough lengths in tokens, int64 [N]."""
    return records.text_lengths // BYTES_PER_TOKEN + tokens_per_image * records.image_counts
