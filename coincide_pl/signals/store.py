"""Per-sample signals on disk: one array a signal, rows in record order, and what they come from.

A store is a directory: `manifest.json`, `<signal>.npy` for each signal, and `done.<rank>` journals
of the rows written, appended to after the rows themselves. Any number of processes write any rows
in any order; killed at any moment, the next run goes on with the rows that no journal names. What
changes in a finished store is found when it is opened.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from coincide_pl.errors import SignalsError
from coincide_pl.files import beside, content_digest, is_as_it_was, reason, write_all
from coincide_pl.signals.forward import ModelFacts
from coincide_pl.signals.signal import Signal, class_path

MANIFEST = "manifest.json"
RENAMED = {"perplexity": "nll", "aum": "margin"}
"""Signals that had other names in earlier versions."""
SYNC_EVERY = 5.0
"""Seconds between the notes of what is done, each after the rows themselves are on disk."""


@dataclass(frozen=True)
class StoredSignal:
    """What a store's manifest says of one of its signals.

    Attributes:
        kind: the default name of its class, by which selectors look for it.
        class_path: import path of its class.
        arguments: of its constructor.
        shape: of a row.
        dtype: of the array.
    """

    kind: str
    class_path: str
    arguments: dict[str, Any]
    shape: list[int]
    dtype: str

    @classmethod
    def of(cls, signal: Signal, facts: ModelFacts) -> StoredSignal:
        """What is noted of a signal from a model of some sizes."""
        arguments = json.loads(json.dumps(signal.arguments, default=str))
        shape = list(signal.shape(facts))
        kind = type(signal)
        return cls(kind.name, class_path(kind), arguments, shape, signal.dtype)


@dataclass(frozen=True)
class Manifest:
    """What a store's numbers depend on.

    Attributes:
        data: fingerprint of the records.
        num_rows: N.
        model: fingerprint of the checkpoint.
        settings: whatever else changes the numbers, by the option's name.
        signals: by name.
        versions: of the libraries; kept, not compared.
    """

    data: str
    num_rows: int
    model: str
    settings: dict[str, Any]
    signals: dict[str, StoredSignal]
    versions: dict[str, str]

    def differences(self, other: Manifest) -> list[str]:
        """In what two stores that may not be mixed differ, in words: this one's, then the other's.

        Args:
            other: of the store that is asked for.
        """
        mine, theirs = (json.loads(json.dumps(asdict(m))) for m in (self, other))
        found = [f"another {name}" for name in ("data", "model") if mine[name] != theirs[name]]
        if mine["num_rows"] != theirs["num_rows"]:
            found.append(f"{mine['num_rows']} rows, not {theirs['num_rows']}")
        found += _compared(mine["settings"], theirs["settings"], "")
        own, wanted = mine["signals"], theirs["signals"]
        if list(own) != list(wanted):
            found.append(f"the signals {', '.join(own)}, not {', '.join(wanted)}")
        for name in sorted(own.keys() & wanted.keys()):
            found += _compared(
                {**own[name].pop("arguments"), **own[name]},
                {**wanted[name].pop("arguments"), **wanted[name]},
                f"{name} with ",
            )
        return found


def _compared(mine: dict[str, Any], theirs: dict[str, Any], of: str) -> list[str]:
    return [
        f"{of}{name} {json.dumps(mine.get(name))}, not {json.dumps(theirs.get(name))}"
        for name in {**mine, **theirs}
        if mine.get(name) != theirs.get(name)
    ]


class SignalsWriter:
    """Fills a store, or goes on filling one made from the same things."""

    def __init__(self, directory: str | Path, manifest: Manifest, rank: int = 0) -> None:
        """Opens a store that `create` has made.

        Args:
            directory: the store.
            manifest: as given to `create`.
            rank: this process; each has a journal of its own.
        """
        self.directory, self.manifest = Path(directory), manifest
        self.done = _done(self.directory, manifest.num_rows)
        self._files = {
            name: (os.open(_array(self.directory, name), os.O_RDWR), *_layout(manifest, name))
            for name in manifest.signals
        }
        self._journal = os.open(
            self.directory / f"done.{rank}", os.O_CREAT | os.O_RDWR | os.O_APPEND, 0o644
        )
        size = os.fstat(self._journal).st_size
        os.ftruncate(self._journal, size - size % 16)  # what a kill left half-written
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
            old, _ = _read_manifest(directory)
            if different := old.differences(manifest):
                raise SignalsError(
                    f"{directory}: its signals come from {'; '.join(different)}: "
                    "name another directory in data.signals, or delete this one"
                )
            _check_arrays(directory, manifest)
            return
        try:
            directory.mkdir(parents=True, exist_ok=True)
            for journal in directory.glob("done.*"):
                journal.unlink()
            for name, signal in manifest.signals.items():
                shape = (manifest.num_rows, *signal.shape)
                np.lib.format.open_memmap(_array(directory, name), "w+", signal.dtype, shape)
        except OSError as error:
            raise SignalsError(f"{directory}: can't be written ({reason(error)})") from error
        _write_manifest(directory, manifest, None)

    def write(self, rows: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Write some rows of every signal, but for those that were done before; note them as done.

        Args:
            rows: int64 [B].
            values: [B, ...] by signal.

        Raises:
            SignalsError: a value is not finite, or the disk is full.
        """
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
                raise SignalsError(f"{_array(self.directory, name)}: {reason(error)}") from error
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
        manifest, digests = _read_manifest(directory)
        if digests is not None:
            return
        missing = int((~_done(directory, manifest.num_rows)).sum())
        if missing:
            raise SignalsError(f"{directory}: {missing} of {manifest.num_rows} rows are missing")
        found = {name: content_digest(_array(directory, name)) for name in manifest.signals}
        _write_manifest(directory, manifest, found)


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
        self.manifest, digests = _read_manifest(self.directory)
        if only:
            if only not in self.manifest.signals:
                held = ", ".join(self.manifest.signals)
                raise SignalsError(f"{self.directory}: holds {held}, and no {only}")
            alone = {only: self.manifest.signals[only]}
            self.manifest = replace(self.manifest, signals=alone)
            digests = {only: digests[only]} if digests is not None else None
        self.check(data=data, model=model, layers=layers)
        if digests is None:
            missing = int((~_done(self.directory, self.manifest.num_rows)).sum())
            raise SignalsError(
                f"{directory}: incomplete, {missing} of {self.manifest.num_rows} rows are missing; "
                "run the same `coincide predict` again to go on"
            )
        self.digests = digests
        _check_arrays(self.directory, self.manifest)
        for name, digest in digests.items():
            path = _array(self.directory, name)
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
    ) -> None:
        """Compares what the signals were made from with what is asked for; see `__init__`.

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
        array: np.ndarray = np.load(_array(self.directory, name), mmap_mode="r", allow_pickle=False)
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

    def __getitem__(self, kind: str) -> np.ndarray:
        store, name = self.holder(kind)
        return store[name]

    def __contains__(self, kind: object) -> bool:
        return kind in self._found

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


def _array(directory: Path, signal: str) -> Path:
    return directory / f"{signal}.npy"


def _layout(manifest: Manifest, signal: str) -> tuple[bytes, int, np.dtype]:
    """What comes before the first row, bytes of a row, dtype."""
    shape = manifest.signals[signal].shape
    dtype = np.dtype(manifest.signals[signal].dtype)
    header: dict[str, Any] = {"descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False}
    header["shape"] = (manifest.num_rows, *shape)
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, header)
    return buffer.getvalue(), math.prod(shape) * dtype.itemsize, dtype


def _check_arrays(directory: Path, manifest: Manifest) -> None:
    """Refuses a store one of whose arrays is missing, cut or grown, or begins differently."""
    for name in manifest.signals:
        path = _array(directory, name)
        header, width, _ = _layout(manifest, name)
        try:
            with path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                whole = file.read(len(header)) == header
        except OSError:
            whole = False
        if not whole or size != len(header) + manifest.num_rows * width:
            raise SignalsError(
                f"{path}: missing or truncated; delete {directory} and predict again"
            )


def _done(directory: Path, num_rows: int) -> np.ndarray:
    """Rows that the journals name; what is no row with its complement is no entry."""
    done = np.zeros(num_rows, bool)
    for journal in directory.glob("done.*"):
        content = journal.read_bytes()
        rows, complements = (
            np.frombuffer(content[: len(content) // 16 * 16], "<i8").reshape(-1, 2).T
        )
        done[rows[(rows == ~complements) & (rows >= 0) & (rows < num_rows)]] = True
    return done


def _read_manifest(directory: Path) -> tuple[Manifest, dict[str, str] | None]:
    path = directory / MANIFEST
    try:
        content = json.loads(path.read_text())
        fields, digests = dict(content["manifest"]), content["digests"]
        if content.get("seal") not in (None, _seal(content)):
            raise ValueError("seal")
        if "layers" in fields:
            raise SignalsError(_earlier(directory, fields))
        signals = {name: StoredSignal(**signal) for name, signal in fields["signals"].items()}
        manifest = Manifest(**{**fields, "signals": signals})
        for name in manifest.signals:
            if not name.isidentifier():
                raise ValueError(name)
            _layout(manifest, name)
        if digests is not None and set(digests) != set(manifest.signals):
            raise ValueError("digests")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise SignalsError(f"{path}: a damaged manifest; delete {directory}") from error
    return manifest, digests


def _earlier(directory: Path, fields: dict[str, Any]) -> str:
    """What to say of a store that an earlier version wrote."""
    names = [f"{old} is now {RENAMED[old]}" for old in fields["signals"] if old in RENAMED]
    renamed = f" ({', '.join(names)})" if names else ""
    return (
        f"{directory}: signals of an earlier version, which did not keep their arguments{renamed}: "
        "delete it and run `coincide predict` again"
    )


def _write_manifest(directory: Path, manifest: Manifest, digests: dict[str, str] | None) -> None:
    content = {"manifest": asdict(manifest), "digests": digests}
    with beside(directory / MANIFEST) as aside:
        aside.write_text(json.dumps({**content, "seal": _seal(content)}, indent=1))


def _seal(content: dict[str, Any]) -> str:
    text = json.dumps([content["manifest"], content["digests"]], sort_keys=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()
