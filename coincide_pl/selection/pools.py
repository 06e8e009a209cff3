"""The signals that a run names, and the pool that a selector chooses from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from coincide_pl.data.records import Records
from coincide_pl.errors import SelectionError, SignalsError
from coincide_pl.models.loading import checkpoint_fingerprint
from coincide_pl.selection.cache import Cache, NoCache
from coincide_pl.selection.selector import Pool, Selector, SignalKind, missing, name_of
from coincide_pl.signals import Signals, SignalsStore


@dataclass(frozen=True)
class SignalSources:
    """Stores of signals by their directories, and what each of them must belong to.

    Attributes:
        directories: of the stores, or `directory/signal` for one signal of a store.
        records: whose rows the signals are.
        images: a digest of the records' images, by what is asked for (`time` or `content`).
        reference: checkpoint that the signals must come from; None for any.
        layers: decoder layers that the activations must hold; None for any.
        read: fingerprints of the stores that were read, by directory; filled here.
        cache_dir: folder for copies of stores at addresses.
    """

    directories: Sequence[str]
    records: Records
    images: Callable[[str | None], str]
    reference: str | None
    layers: list[int] | None
    read: dict[str, str]
    cache_dir: str

    def pool(self, selector: Selector, device: torch.device | None = None) -> Pool:
        """The records, with the signals that a selector needs and where these come from.

        Args:
            selector: the signals that it needs are looked for.
            device: where it may compute, if that is a GPU.

        Raises:
            SelectionError: no stores are named, though the selector needs signals, or the stores of
                other data that it reads are none.
            SignalsError: a store is unfinished, damaged, or made from something else.
        """
        fingerprints = {"data": self.records.fingerprint}
        kinds = (*selector.needs, *selector.several)
        if not kinds:
            return Pool(self.records, {}, fingerprints)
        stores = self.stores(type(selector).__name__, kinds)
        needed = set(map(name_of, kinds))
        used = [store for store in stores if needed & store.kinds]
        if used:  # a store that has no part in it may come and go
            fingerprints["signals"] = " + ".join(map(self.noted, used))
        for option, directories in selector.stores.items():
            try:
                others = [SignalsStore(directory) for directory in directories]
            except SignalsError as error:
                raise SelectionError(f"data.selector.{option}: {error}") from error
            fingerprints[option] = " + ".join(map(self.noted, others))
        signals = Signals(used)
        num_layers = None
        if "activations" in needed & set(signals):
            store, name = signals.holder("activations")
            num_layers = len(store.manifest.signals[name].arguments["layers"])
        return Pool(
            self.records,
            signals,
            fingerprints,
            num_layers,
            Cache(used[0].directory / "selection", {}) if used else NoCache(),
            str(device) if device is not None and device.type == "cuda" else "cpu",
            {name: signals.every(name) for name in map(name_of, selector.several)},
            {name: signals.origins(name) for name in map(name_of, kinds)},
        )

    def signal(self, name: str, reader: str) -> np.ndarray:
        """A signal of the records, memory-mapped, [N, ...]; see `ServedData.signal`."""
        signals = Signals(self.stores(reader, (name,)))
        if name not in signals:
            raise SelectionError(f"data.signals: {missing(reader, (name,))}")
        self.noted(signals.holder(name)[0])
        return signals[name]

    def stores(self, reader: str, needed: Sequence[SignalKind]) -> list[SignalsStore]:
        """The stores, checked; `reader` is who needs the signals, as a message should say."""
        if not self.directories:
            raise SelectionError(f"data.signals: {missing(reader, needed)}")
        data = self.records.fingerprint
        stores = [
            SignalsStore(path, data=data, cache_dir=self.cache_dir) for path in self.directories
        ]
        for store in stores:
            store.check(images=self.images)
            if "activations" in store.kinds or len(stores) == 1:
                model = checkpoint_fingerprint(self.reference) if self.reference else None
                store.check(model=model, layers=self.layers)
        return stores

    def noted(self, store: SignalsStore) -> str:
        """A store's fingerprint, kept in `read` for what tells of the run."""
        self.read[str(store.directory)] = store.fingerprint
        return store.fingerprint
