"""Per-sample signals on disk: one array a signal, rows in record order, and what they come from.

A sealed store is a directory with `manifest.json` and, for each signal, `<signal>.npy`, or
`<signal>-00001-of-00027.npy` and so on where the array is large. A store that is being filled
(`filling`) has `shards/` in their place. What changes in a finished store is found when it is
opened.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import cast

import numpy as np

from coincide_pl.data.shards.places import is_url
from coincide_pl.errors import SignalsError
from coincide_pl.files import is_as_it_was
from coincide_pl.signals.manifest import (
    MANIFEST,
    Origin,
    array_files,
    check_arrays,
    read_manifest,
)
from coincide_pl.signals.parted import PartedArray
from coincide_pl.signals.remote import CACHE, local_copy
from coincide_pl.signals.shards import rows_done


class SignalsStore(Mapping[str, np.ndarray]):
    """A finished store, read only."""

    def __init__(
        self,
        directory: str | Path,
        *,
        data: str | None = None,
        model: str | None = None,
        layers: list[int] | None = None,
        cache_dir: str | Path = CACHE,
    ) -> None:
        """Opens a store and checks that it is what is asked for.

        Args:
            directory: the store, or the store and one of its signals (`signals/activations`), for
                that one alone; an address that fsspec opens is read through a local copy.
            data: fingerprint of the records that its rows must belong to.
            model: fingerprint of the model that it must come from.
            layers: decoder layers that its signals must have read, where they read layers.
            cache_dir: folder for copies of stores at addresses.

        Raises:
            SignalsError: missing, unfinished, truncated, or made from something else.
        """
        if is_url(str(directory)):
            directory = local_copy(str(directory), cache_dir)
        self.directory, only = Path(directory), ""
        if not (self.directory / MANIFEST).is_file():
            self.directory, only = self.directory.parent, self.directory.name
        if not (self.directory / MANIFEST).is_file():
            raise SignalsError(f"{directory}: no signals here; make them with `coincide predict`")
        self.manifest, contents = read_manifest(self.directory)
        if only:
            if only not in self.manifest.signals:
                held = ", ".join(self.manifest.signals)
                raise SignalsError(f"{self.directory}: holds {held}, and no {only}")
            alone = {only: self.manifest.signals[only]}
            self.manifest = replace(self.manifest, signals=alone)
            contents = contents and contents.only(only)
        self.check(data=data, model=model, layers=layers)
        if contents is None:
            missing = int((~rows_done(self.directory, self.manifest)).sum())
            raise SignalsError(
                f"{directory}: incomplete, {missing} of {self.manifest.num_rows} rows are missing; "
                "run the same `coincide predict` again to go on"
            )
        self.contents = contents
        check_arrays(self.directory, self.manifest, contents)
        for path, digest in contents.paths(self.directory):
            if not is_as_it_was(path, digest):
                raise SignalsError(
                    f"{path}: changed since it was written; delete {directory} and predict again"
                )

    def check(
        self,
        *,
        data: str | None = None,
        model: str | None = None,
        layers: list[int] | None = None,
        images: Callable[[str], str] | None = None,
    ) -> None:
        """Compares what the signals were made from with what is asked for.

        Args:
            data: fingerprint of the records.
            model: fingerprint of the model.
            layers: decoder layers that signals must have read, where they read layers.
            images: gives the state of the images now, by `time` or by `content`.

        Raises:
            SignalsError: they were made from something else.
        """
        wanted: list[tuple[str, object, object]] = [
            ("data", self.manifest.data, data),
            ("model", self.manifest.model, model),
        ]
        for signal in self.manifest.signals.values():
            if "layers" in signal.arguments:
                wanted.append(("layers", signal.arguments["layers"], layers))
        for name, found, value in wanted:
            if value is not None and found != value:
                raise SignalsError(
                    f"{self.directory}: its signals belong to other {name} ({found}, not {value}); "
                    "make them again with `coincide predict` in another directory"
                )
        kept = self.manifest.images
        if images is not None and images(kept.partition(":")[0]) != kept:
            raise SignalsError(
                f"{self.directory}: the images have changed since its signals were made (sizes or "
                "times of change); make them again with `coincide predict` in another directory. "
                "Images that were only copied keep their times with `cp -a`, or need no times with "
                "--data.images_by=content in predict"
                if kept.startswith("time")
                else f"{self.directory}: the images have changed since its signals were made; make "
                "them again with `coincide predict` in another directory"
            )

    @property
    def kinds(self) -> set[str]:
        """Default names of its signals' classes."""
        return {signal.kind for signal in self.manifest.signals.values()}

    @property
    def fingerprint(self) -> str:
        """Digest of what the store was made from and of its contents."""
        content = {k: v for k, v in asdict(self.manifest).items() if k != "versions"}
        text = json.dumps([content, self.contents.digests], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.manifest.signals:
            raise KeyError(name)
        files = array_files(self.directory, name, self.contents.num_files(name))
        parts = [np.load(path, mmap_mode="r", allow_pickle=False) for path in files]
        return parts[0] if len(parts) == 1 else cast("np.ndarray", PartedArray(parts))

    def __iter__(self) -> Iterator[str]:
        return iter(self.manifest.signals)

    def __len__(self) -> int:
        return len(self.manifest.signals)


def load_signals(directory: str | Path) -> SignalsStore:
    """Open a finished store of signals: a mapping from names to memory-mapped arrays [N, ...].

    Args:
        directory: the store, or the store and one of its signals, as `data.signals` names it.

    Raises:
        SignalsError: missing, unfinished, truncated, or changed since it was written.
    """
    return SignalsStore(directory)


class Signals(Mapping[str, np.ndarray]):
    """Signals of several stores of the same records, found by the default name of their class."""

    def __init__(self, stores: Sequence[SignalsStore]) -> None:
        """Looks at what each store holds.

        Args:
            stores: whose rows belong to the same records.
        """
        self._found: dict[str, list[tuple[SignalsStore, str]]] = {}
        for store in stores:
            for name, signal in store.manifest.signals.items():
                self._found.setdefault(signal.kind, []).append((store, name))

    def holder(self, kind: str) -> tuple[SignalsStore, str]:
        """The store that holds a signal, and its name there.

        Args:
            kind: the default name of the signal's class.

        Raises:
            KeyError: none does.
            SignalsError: there is more than one.
        """
        found = self._found[kind]
        if len(found) > 1:
            places = [f"{store.directory}/{name}" for store, name in found]
            raise SignalsError(
                f"data.signals: {kind!r} is in {' and in '.join(places)}; name one of them, "
                f"as in data.signals={places[0]}"
            )
        return found[0]

    def every(self, kind: str) -> list[np.ndarray]:
        """A signal from every store that holds it, in the order of the stores.

        Args:
            kind: the default name of the signal's class.
        """
        return [store[name] for store, name in self._found.get(kind, [])]

    def origins(self, kind: str) -> list[Origin]:
        """What the arrays of a signal come from, in the order of the stores.

        Args:
            kind: the default name of the signal's class.
        """
        return [
            Origin(store.manifest, store.manifest.signals[name])
            for store, name in self._found.get(kind, [])
        ]

    def __getitem__(self, kind: str) -> np.ndarray:
        store, name = self.holder(kind)
        return store[name]

    def __contains__(self, kind: object) -> bool:
        return kind in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)
