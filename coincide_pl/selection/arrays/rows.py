"""Read rows of a feature matrix into buffers of their own, so that memory is what was asked for."""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from coincide_pl.errors import SelectionError

READERS = 8
"""Reads under way at once, where rows lie apart: disks answer several faster than one by one."""


class Rows:
    """Rows [n, D] of an array in memory or in a memory-mapped `.npy` file.

    Pages of a memory map count as the process's memory and are faulted in 4 KiB at a time; here the
    file under the map is read with `pread`, whole runs of rows at once.
    """

    def __init__(self, features: Any, chosen: np.ndarray | None = None) -> None:
        """Reads nothing yet.

        Args:
            features: [N, D] of a float dtype: an array, a memory map of one, or a tensor in memory.
            chosen: int64 [n] ascending, which of the N rows this is about (default: all).
        """
        self.features: Any = features if isinstance(features, np.ndarray) else np.asarray(features)
        self.chosen = chosen
        self.width: int = self.features.shape[1]
        self.dtype = self.features.dtype
        self._file: int | None = None
        name = getattr(self.features, "filename", None)
        mapped = isinstance(self.features, np.memmap) and isinstance(self.features.base, mmap.mmap)
        if mapped and name is not None and self.features.flags.c_contiguous:
            self._file = os.open(name, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)
            self._offset = int(getattr(self.features, "offset", 0))

    def __len__(self) -> int:
        return len(self.features) if self.chosen is None else len(self.chosen)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return self.width * self.dtype.itemsize

    def subset(self, rows: np.ndarray) -> Rows:
        """Some of these rows, ascending, as rows of their own."""
        return Rows(self.features, rows if self.chosen is None else self.chosen[rows])

    def block(self, start: int, stop: int) -> np.ndarray:
        """Consecutive rows, [stop - start, D]."""
        return self.gather(np.arange(start, min(stop, len(self))))

    def gather(self, rows: np.ndarray) -> np.ndarray:
        """Rows in ascending order, [len(rows), D]; runs of neighbours are read at once."""
        if self.chosen is not None:
            rows = self.chosen[rows]
        if self._file is None:
            return self.features[rows]
        out = np.empty((len(rows), self.width), self.dtype)
        heads = np.flatnonzero(np.diff(rows, prepend=-2) != 1)
        ends = np.append(heads[1:], len(rows))
        if len(heads) == 1:
            self._read(out, int(rows[0]))
        elif len(heads):
            spans = zip(heads.tolist(), ends.tolist(), strict=True)
            jobs = [(out[a:b], int(rows[a])) for a, b in spans]
            with ThreadPoolExecutor(READERS) as readers:
                share = max(1, len(jobs) // (4 * READERS))
                parts = [jobs[i : i + share] for i in range(0, len(jobs), share)]
                list(readers.map(self._read_all, parts))
        return out

    def _read_all(self, jobs: list[tuple[np.ndarray, int]]) -> None:
        for out, row in jobs:
            self._read(out, row)

    def _read(self, out: np.ndarray, row: int) -> None:
        view = memoryview(out.reshape(-1).view(np.uint8).data)
        at = self._offset + row * self.row_bytes
        assert self._file is not None
        while view:
            count = os.preadv(self._file, [view], at)
            if count == 0:
                raise SelectionError(f"{self.features.filename}: truncated while it was read")
            view, at = view[count:], at + count

    def blocks(self, height: int) -> Iterator[tuple[slice, np.ndarray]]:
        """All rows in consecutive blocks, each read while the one before is worked on."""
        spans = [slice(i, min(i + height, len(self))) for i in range(0, len(self), height)]
        groups = (np.arange(s.start, s.stop) for s in spans)
        yield from zip(spans, self.gathers(groups), strict=True)

    def gathers(self, groups: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        """The rows of each group, each read while the one before is worked on."""
        with ThreadPoolExecutor(1) as ahead:
            waiting = None
            for group in groups:
                coming = ahead.submit(self.gather, group)
                if waiting is not None:
                    yield waiting.result()
                waiting = coming
            if waiting is not None:
                yield waiting.result()
