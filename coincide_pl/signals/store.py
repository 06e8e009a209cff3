"""Per-sample signals on disk: one array a signal, rows in record order, and what they come from.

A store is a directory: `manifest.json`, `<signal>.npy` for each signal, and `done.<rank>` journals
of the rows written, appended to after the rows themselves. Any number of processes write any rows
in any order; killed at any moment, the next run goes on with the rows that no journal names. What
changes in a finished store is found when it is opened.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from uuid import uuid4

import numpy as np

from coincide_pl.errors import SignalsError
from coincide_pl.files import content_digest, is_as_it_was, reason, write_all
from coincide_pl.signals.manifest import (
    MANIFEST,
    Manifest,
    Origin,
    array_file,
    check_arrays,
    layout,
    read_manifest,
    rows_done,
    write_manifest,
)

SYNC_EVERY = 5.0
"""Seconds between the notes of what is done, each after the rows themselves are on disk."""


class SignalsWriter:
    """Fills a store, or goes on filling one made from the same things."""

    def __init__(self, directory: str | Path, manifest: Manifest, rank: int = 0) -> None:
        """Opens a store that `create` has made.

        Args:
            directory: the store.
            manifest: as given to `create`.
            rank: this process; each has a journal of its own, also where several have one rank.
        """
        self.directory, self.manifest = Path(directory), manifest
        self.done = rows_done(self.directory, manifest.num_rows)
        self._files = {
            name: (os.open(array_file(self.directory, name), os.O_RDWR), *layout(manifest, name))
            for name in manifest.signals
        }
        self._journal = _journal(self.directory / f"done.{rank}")
        self._written: list[np.ndarray] = []
        self._synced = time.monotonic()

    @staticmethod
    def create(directory: str | Path, manifest: Manifest) -> None:
        """Make an empty store, or check that the one there was made from the same things.

        Raises:
            SignalsError: another store, or something else, is there.
        """
        directory = Path(directory)
        if (directory / MANIFEST).exists():
            old, _ = read_manifest(directory)
            if different := old.differences(manifest):
                raise SignalsError(
                    f"{directory}: its signals come from {'; '.join(different)}: "
                    "name another directory in data.signals, or delete this one"
                )
            check_arrays(directory, manifest)
            return
        if array_file(directory.parent, directory.name).exists():
            raise SignalsError(
                f"{directory}: names a signal of the store {directory.parent}; name another"
            )
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for journal in directory.glob("done.*"):
                journal.unlink()
            for name, signal in manifest.signals.items():
                shape = (manifest.num_rows, *signal.shape)
                np.lib.format.open_memmap(array_file(directory, name), "w+", signal.dtype, shape)
        except OSError as error:
            raise SignalsError(f"{directory}: can't be written ({reason(error)})") from error
        write_manifest(directory, manifest, None)

    def write(self, rows: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Write some rows of every signal, but for those that were done before; note them as done.

        Args:
            rows: int64 [B].
            values: [B, ...] by signal.

        Raises:
            SignalsError: a value is not finite, rows are of another shape, or the disk is full.
        """
        for name, signal in self.manifest.signals.items():
            if values[name].shape != (wanted := (len(rows), *signal.shape)):
                raise SignalsError(
                    f"{signal.class_path}: its rows for {len(rows)} samples have the shape "
                    f"{list(values[name].shape)}, and its `shape` says {list(wanted)}"
                )
        new = ~self.done[rows]
        values = {name: values[name][new] for name in self._files}
        rows = rows[new]
        for name, (file, header, width, dtype) in self._files.items():
            array = np.ascontiguousarray(values[name], dtype)
            if not np.isfinite(array).all():
                bad = rows[~np.isfinite(array.reshape(len(rows), -1)).all(1)]
                raise SignalsError(
                    f"{name} of record {bad[0]} holds NaN or infinity: the model overflows "
                    "(try another dtype or precision) or its weights are broken"
                )
            for row, value in zip(rows.tolist(), array, strict=True):
                self._write(file, value.tobytes(), len(header) + row * width, name)
        self._written.append(rows.astype("<i8"))
        if time.monotonic() - self._synced > SYNC_EVERY:
            self._note_written()

    def _note_written(self) -> None:
        """Notes what was written, once it is on disk and would outlast a power cut."""
        rows = np.concatenate(self._written) if self._written else np.zeros(0, "<i8")
        for name, (file, *_) in self._files.items():
            try:
                os.fsync(file)
            except OSError as error:
                raise SignalsError(
                    f"{array_file(self.directory, name)}: {reason(error)}"
                ) from error
        self._write(self._journal, np.stack([rows, ~rows], 1).tobytes(), None, "done")
        self._written, self._synced = [], time.monotonic()

    def _write(self, file: int, content: bytes, at: int | None, name: str) -> None:
        try:
            write_all(file, content, at)
        except OSError as error:
            path = self.directory / (name if at is None else f"{name}.npy")
            raise SignalsError(f"{path}: can't be written ({reason(error)})") from error

    def close(self) -> None:
        """Note what is written, and close; a second call does nothing."""
        if self._files:
            try:
                self._note_written()
            finally:
                for file in (*(entry[0] for entry in self._files.values()), self._journal):
                    os.close(file)
                self._files = {}

    @staticmethod
    def finish(directory: str | Path) -> None:
        """Once no process writes any more: check that all rows are there, and seal the store.

        Raises:
            SignalsError: rows are missing.
        """
        directory = Path(directory)
        manifest, digests = read_manifest(directory)
        if digests is not None:
            return
        missing = int((~rows_done(directory, manifest.num_rows)).sum())
        if missing:
            raise SignalsError(f"{directory}: {missing} of {manifest.num_rows} rows are missing")
        found = {name: content_digest(array_file(directory, name)) for name in manifest.signals}
        write_manifest(directory, manifest, found)


def _journal(path: Path) -> int:
    """Opens a journal that no living process writes: this one, or the first free one beside it."""
    name, number = path, 0
    while True:
        file = os.open(name, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            os.close(file)
            number += 1
            name = path.with_name(f"{path.name}.{number}")
            continue
        except OSError:  # a file system without locks
            os.close(file)
            name = path.with_name(f"{path.name}.{uuid4().hex}")
            return os.open(name, os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644)
        size = os.fstat(file).st_size
        os.ftruncate(file, size - size % 16)  # what a kill left half-written
        return file


class SignalsStore(Mapping[str, np.ndarray]):
    """A finished store, read only."""

    def __init__(
        self,
        directory: str | Path,
        *,
        data: str | None = None,
        model: str | None = None,
        layers: list[int] | None = None,
    ) -> None:
        """Opens a store and checks that it is what is asked for.

        Args:
            directory: the store, or the store and one of its signals (`signals/activations`), for
                that one alone.
            data: fingerprint of the records that its rows must belong to.
            model: fingerprint of the model that it must come from.
            layers: decoder layers that its signals must have read, where they read layers.

        Raises:
            SignalsError: missing, unfinished, truncated, or made from something else.
        """
        self.directory, only = Path(directory), ""
        if not (self.directory / MANIFEST).is_file():
            self.directory, only = self.directory.parent, self.directory.name
        if not (self.directory / MANIFEST).is_file():
            raise SignalsError(f"{directory}: no signals here; make them with `coincide predict`")
        self.manifest, digests = read_manifest(self.directory)
        if only:
            if only not in self.manifest.signals:
                held = ", ".join(self.manifest.signals)
                raise SignalsError(f"{self.directory}: holds {held}, and no {only}")
            alone = {only: self.manifest.signals[only]}
            self.manifest = replace(self.manifest, signals=alone)
            digests = {only: digests[only]} if digests is not None else None
        self.check(data=data, model=model, layers=layers)
        if digests is None:
            missing = int((~rows_done(self.directory, self.manifest.num_rows)).sum())
            raise SignalsError(
                f"{directory}: incomplete, {missing} of {self.manifest.num_rows} rows are missing; "
                "run the same `coincide predict` again to go on"
            )
        self.digests = digests
        check_arrays(self.directory, self.manifest)
        for name, digest in digests.items():
            path = array_file(self.directory, name)
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
        text = json.dumps([content, self.digests], sort_keys=True)
        return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self.manifest.signals:
            raise KeyError(name)
        path = array_file(self.directory, name)
        array: np.ndarray = np.load(path, mmap_mode="r", allow_pickle=False)
        return array

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
