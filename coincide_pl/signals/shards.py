"""The rows that processes wrote, each into files of its own, in the order in which it came to them.

A shard is what one process wrote from one start on: for each signal a file of rows one after the
other, and a journal, whose k-th entry says which record the k-th row of each file belongs to. Rows
come scattered over the records, for batches are of like lengths; so a shard holds no range of them,
and is sorted into the store's arrays when the store is sealed (`sealing`). Only the process that
began a shard ever writes to it, and a journal names rows that are on disk already: whatever is
killed whenever, and on whatever file system, what the journals name can be read.
"""

from __future__ import annotations

import os
import secrets
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coincide_pl.errors import SignalsError
from coincide_pl.files import reason, write_all
from coincide_pl.signals.manifest import Manifest, layout

FOLDER = "shards"
"""Folder of a store for its shards; it is gone once the store is sealed."""
JOURNAL = ".rows"
VALUES = ".values"
Checks = npt.NDArray[np.uint32]


def entries(manifest: Manifest) -> np.dtype[np.void]:
    """An entry of a journal: a row, its complement, and the CRC-32 of each signal's value."""
    return np.dtype([("row", "<i8"), ("not", "<i8"), ("check", "<u4", (len(manifest.signals),))])


def checks(array: npt.NDArray[np.generic]) -> Checks:
    """The CRC-32 of each row of a contiguous array [n, ...]."""
    content = memoryview(array.reshape(-1).view(np.uint8).data)
    width = len(content) // len(array)
    starts = range(0, len(content), width)
    return np.array([zlib.crc32(content[at : at + width]) for at in starts], np.uint32)


class Shard:
    """The files that this process appends to."""

    def __init__(self, store: Path, manifest: Manifest, rank: int) -> None:
        """Begins a shard under a name that no other has.

        Args:
            store: the directory of the store.
            manifest: its signals.
            rank: of this process; part of the name.

        Raises:
            SignalsError: it can't be written.
        """
        self.manifest = manifest
        self.stem = store / FOLDER / f"{rank}-{secrets.token_hex(6)}"
        self._written: list[tuple[npt.NDArray[np.int64], Checks]] = []
        self._journal = self._begin(f"{self.stem}{JOURNAL}")
        self._values = {
            name: self._begin(f"{self.stem}.{name}{VALUES}") for name in manifest.signals
        }

    @property
    def paths(self) -> list[Path]:
        """Its files, the journal last."""
        values = [Path(f"{self.stem}.{name}{VALUES}") for name in self._values]
        return [*values, Path(f"{self.stem}{JOURNAL}")]

    @property
    def size(self) -> int:
        """Bytes of its files."""
        return sum(path.stat().st_size for path in self.paths)

    def _begin(self, path: str) -> int:
        try:
            return os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY | os.O_APPEND, 0o644)
        except OSError as error:
            raise SignalsError(f"{path}: can't be written ({reason(error)})") from error

    def append(
        self, rows: npt.NDArray[np.int64], arrays: Mapping[str, npt.NDArray[np.generic]]
    ) -> None:
        """Writes the values of some rows, contiguous and of their stored dtype.

        Raises:
            SignalsError: the disk is full.
        """
        for name, file in self._values.items():
            self._append(file, arrays[name].tobytes(), f"{self.stem}.{name}{VALUES}")
        self._written.append((rows, np.stack([*map(checks, arrays.values())], 1)))

    def note(self) -> None:
        """Enters what was written into the journal, once it would outlast a power cut.

        Raises:
            SignalsError: the disk is full.
        """
        if not self._written:
            return
        for name, file in self._values.items():
            try:
                os.fsync(file)
            except OSError as error:
                raise SignalsError(f"{self.stem}.{name}{VALUES}: {reason(error)}") from error
        rows = np.concatenate([rows for rows, _ in self._written])
        noted = np.empty(len(rows), entries(self.manifest))
        noted["row"], noted["not"] = rows, ~rows
        noted["check"] = np.concatenate([check for _, check in self._written])
        self._append(self._journal, noted.tobytes(), f"{self.stem}{JOURNAL}")
        self._written = []

    def _append(self, file: int, content: bytes, path: str) -> None:
        try:
            write_all(file, content)
        except OSError as error:
            raise SignalsError(f"{path}: can't be written ({reason(error)})") from error

    def close(self) -> None:
        """Closes the files; what was not noted counts as never written."""
        for file in (self._journal, *self._values.values()):
            os.close(file)


@dataclass(frozen=True)
class Written:
    """What the journal of a shard names.

    Attributes:
        stem: path of the shard's files, without their endings.
        rows: int64 [n], the records.
        places: int64 [n], the places of their values in the shard's files.
        checks: uint32 [n, signals].
    """

    stem: str
    rows: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    checks: Checks

    def values(self, signal: str) -> str:
        """Path of the values of a signal."""
        return f"{self.stem}.{signal}{VALUES}"


def written(store: Path, manifest: Manifest) -> list[Written]:
    """The shards of a store, without entries that are damaged or whose values are cut off."""
    folder = store / FOLDER
    kind = entries(manifest)
    found = []
    for journal in sorted(folder.glob(f"*{JOURNAL}")):
        content = journal.read_bytes()
        noted = np.frombuffer(content[: len(content) // kind.itemsize * kind.itemsize], kind)
        shard = Written(str(journal)[: -len(JOURNAL)], noted["row"], np.arange(0), noted["check"])
        held = min(_rows_held(shard.values(name), manifest, name) for name in manifest.signals)
        rows = shard.rows[:held]
        good = (rows == ~noted["not"][:held]) & (rows >= 0) & (rows < manifest.num_rows)
        places = np.flatnonzero(good)
        found.append(Written(shard.stem, rows[places], places, shard.checks[places]))
    return found


def _rows_held(path: str, manifest: Manifest, signal: str) -> int:
    """How many whole rows a file of values holds."""
    try:
        return os.stat(path).st_size // max(1, layout(manifest, signal)[1])
    except FileNotFoundError:
        return 0


def rows_done(store: Path, manifest: Manifest) -> npt.NDArray[np.bool_]:
    """Which rows [N] the shards of a store hold."""
    done = np.zeros(manifest.num_rows, bool)
    for shard in written(store, manifest):
        done[shard.rows] = True
    return done
