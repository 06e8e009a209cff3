"""Sort the rows of all shards into a store's arrays: rows in record order, in files of like size.

Selection reads arrays from their beginning to their end, tens of times, and many selections read
one store; so rows are put in order once, here, and a sealed store is the same, byte for byte,
whoever wrote which rows. Each array is an `.npy` file, or several of them where it is large, each
with the next rows. An array that fits one file is what earlier versions wrote.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt

from coincide_pl.errors import SignalsError
from coincide_pl.files import beside
from coincide_pl.signals.manifest import Contents, Manifest, array_files, layout, spans
from coincide_pl.signals.shards import FOLDER, Written, checks, written

FILE_BYTES = 1 << 30
"""Bytes of a file of a large array; arrays of more than `MOST_FILES` of them have larger files."""
MOST_FILES = 256
"""Files of an array, at most: all of them are open while it is read."""
BLOCK_BYTES = 64 << 20
"""Bytes of rows that are put in order at once."""
READERS = 8
"""Reads under way at once: rows lie apart, and disks answer several faster than one by one."""


def seal(store: Path, manifest: Manifest, called: str = "") -> Contents:
    """Writes the arrays of a store, every row of which is in its shards.

    Each row is read once, and written once; until the shards are removed, they and the arrays need
    twice the store's space.

    Args:
        store: its directory.
        manifest: what it holds.
        called: how messages name the store (default: its directory).

    Returns:
        the digests of the arrays and of their files.

    Raises:
        SignalsError: rows are missing, or the values of one are not as they were written.
        FileError: the disk is full.
    """
    _look_again(store / FOLDER)
    source = Sorted(store, manifest, called or str(store))
    contents = Contents({}, {})
    for number, (name, signal) in enumerate(manifest.signals.items()):
        count = _num_files(manifest, name)
        files = array_files(store, name, count)
        for old in (*store.glob(f"{name}-*-of-*.npy"), *array_files(store, name, 1)):
            if old not in files:
                old.unlink(missing_ok=True)
        whole = hashlib.blake2b(layout(manifest, name)[0])
        digests = []
        for path, span in zip(files, spans(manifest.num_rows, count), strict=True):
            header, *_ = layout(manifest, name, span.stop - span.start)
            own = hashlib.blake2b(header) if count > 1 else whole
            with beside(path) as aside, aside.open("wb") as file, ThreadPoolExecutor(2) as both:
                file.write(header)
                for block in source.blocks(number, name, np.dtype(signal.dtype), span):
                    digested = [both.submit(one.update, block.data) for one in {whole, own}]
                    file.write(block.data)
                    for one in digested:
                        one.result()
            digests.append(own.hexdigest()[:32])
        contents.digests[name] = whole.hexdigest()[:32]
        if count > 1:
            contents.files[name] = digests
    return contents


def remove_shards(store: Path) -> None:
    """Removes the shards of a sealed store."""
    shutil.rmtree(store / FOLDER, ignore_errors=True)


def _num_files(manifest: Manifest, name: str) -> int:
    """How many files an array takes; every one holds a row."""
    _, width, _ = layout(manifest, name)
    wanted = -(-manifest.num_rows * width // FILE_BYTES)
    return max(1, min(wanted, MOST_FILES, manifest.num_rows))


def _look_again(folder: Path) -> None:
    """Changes a folder and puts it back: an NFS client may list one as it was a minute ago."""
    mark = folder / f".{os.getpid()}"
    mark.touch()
    mark.unlink()


class Sorted:
    """The rows of all shards in record order."""

    def __init__(self, store: Path, manifest: Manifest, called: str) -> None:
        """Finds each row.

        Args:
            store: its directory.
            manifest: what it holds.
            called: how messages name it.

        Raises:
            SignalsError: rows are missing.
        """
        self.manifest, self.called = manifest, called
        self.shards = written(store, manifest)
        heights = [len(shard.rows) for shard in self.shards]
        self.starts = np.concatenate([[0], np.cumsum(heights, dtype=np.int64)])
        # Place of a record's row among those of all shards, one after the other.
        self.entry = np.full(manifest.num_rows, -1, np.int64)
        for start, shard in zip(self.starts, self.shards, strict=False):
            self.entry[shard.rows] = start + np.arange(len(shard.rows))
        if missing := int((self.entry < 0).sum()):
            raise SignalsError(f"{called}: {missing} of {manifest.num_rows} rows are missing")

    def blocks(
        self, number: int, name: str, dtype: np.dtype[np.generic], span: slice
    ) -> Iterator[npt.NDArray[np.generic]]:
        """Some rows of a signal in consecutive blocks, each read while the last is worked on.

        Raises:
            SignalsError: values are not as they were written.
        """
        shape = self.manifest.signals[name].shape
        row = np.dtype((np.void, max(1, layout(self.manifest, name)[1])))
        height = max(1, BLOCK_BYTES // row.itemsize)
        parts = [slice(a, min(a + height, span.stop)) for a in range(span.start, span.stop, height)]
        with ThreadPoolExecutor(1) as ahead:
            coming = None
            for part in [*parts, None]:
                ready = coming
                coming = part and ahead.submit(self._block, number, name, row, part)
                if ready is not None:
                    yield ready.result().view(dtype).reshape(-1, *shape)

    def _block(
        self, number: int, name: str, row: np.dtype[np.void], span: slice
    ) -> npt.NDArray[np.void]:
        entry = self.entry[span]
        out = np.empty(len(entry), row)
        which = np.searchsorted(self.starts, entry, "right") - 1
        order = np.argsort(entry)
        ends = np.searchsorted(which[order], np.arange(len(self.shards) + 1))
        with ThreadPoolExecutor(READERS) as readers:
            jobs = [
                readers.submit(self._read, number, name, shard, order[a:b], entry, out)
                for shard, (a, b) in enumerate(itertools.pairwise(ends.tolist()))
                if a < b
            ]
            for job in jobs:
                job.result()
        return out

    def _read(
        self,
        number: int,
        name: str,
        shard: int,
        rows: npt.NDArray[np.int64],
        entry: npt.NDArray[np.int64],
        out: npt.NDArray[np.void],
    ) -> None:
        """Fills the rows of a block that a shard holds, in the order in which they lie there."""
        held: Written = self.shards[shard]
        own = entry[rows] - self.starts[shard]
        places = held.places[own]
        path = held.values(name)
        file = os.open(path, os.O_RDONLY)
        try:
            found = _gathered(file, places, out.dtype)
        finally:
            os.close(file)
        if found is None or (checks(found) != held.checks[own, number]).any():
            shards = f"{self.called}/{FOLDER}"
            raise SignalsError(
                f"{shards}/{Path(path).name}: damaged; delete {shards}/{Path(held.stem).name}.* "
                "and run the same `coincide predict` again to make these rows anew"
            )
        out[rows] = found


def _gathered(
    file: int, places: npt.NDArray[np.int64], row: np.dtype[np.void]
) -> npt.NDArray[np.void] | None:
    """Rows at ascending places of a file; None where it ends before."""
    width, first = row.itemsize, int(places[0])
    reach = int(places[-1]) - first + 1
    if reach <= 2 * len(places) or reach * width <= 1 << 20:
        content = np.empty(reach, row)
        return content[places - first] if _fill(file, content, first * width) else None
    found = np.empty(len(places), row)
    heads = np.flatnonzero(np.diff(places, prepend=-2) != 1)
    for a, b in zip(heads.tolist(), [*heads[1:].tolist(), len(places)], strict=True):
        if not _fill(file, found[a:b], int(places[a]) * width):
            return None
    return found


def _fill(file: int, out: npt.NDArray[np.void], at: int) -> bool:
    """Reads bytes from a place on until the array is full; false where the file ends before."""
    view = memoryview(out.view(np.uint8).data)
    while view:
        count = os.preadv(file, [view], at)
        if count == 0:
            return False
        view, at = view[count:], at + count
    return True
