"""An array whose rows lie in several files, read as if it were one memory map."""

from __future__ import annotations

from collections.abc import Sequence
from types import EllipsisType
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


class PartedArray:
    """Memory-mapped rows [N, ...] of several files, each with the next of them.

    It has what readers of a memory map ask for: `shape`, `dtype`, `ndim`, `len`, rows by number,
    slice, mask or array of numbers, also of some of what is in each (`array[rows, 0]`), and
    `np.asarray`, which reads all. Rows of one file are a view; those of several are copied.
    """

    def __init__(self, parts: Sequence[np.memmap[Any, Any]]) -> None:
        """Puts files one after the other.

        Args:
            parts: memory maps [n_i, ...] of one dtype and width.
        """
        self.parts = tuple(parts)
        self.starts = np.cumsum([0, *map(len, parts)])[:-1]
        self.shape = (sum(map(len, parts)), *parts[0].shape[1:])
        self.dtype, self.ndim = parts[0].dtype, parts[0].ndim

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Any) -> Any:
        """What the whole array would give.

        Raises:
            IndexError: a row that is not there, or arrays that say which numbers of it are wanted.
        """
        first, *others = index if isinstance(index, tuple) else (index,)
        if not all(isinstance(one, int | np.integer | slice | EllipsisType) for one in others):
            raise IndexError("which numbers of a row are wanted is said by numbers and slices")
        if isinstance(first, slice) and first.step in (None, 1):
            found, depth = self._range(*first.indices(len(self))[:2]), 1
        else:
            rows = self._numbers(first)
            found, depth = self._gather(rows.reshape(-1)), rows.ndim
            found = found.reshape((*rows.shape, *self.shape[1:]))[()]
        return found[(*[slice(None)] * depth, *others)] if others else found

    def _numbers(self, index: Any) -> npt.NDArray[np.int64]:
        """The rows that an index names, counted from the first."""
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        rows = np.asarray(index)
        if rows.dtype == bool and rows.shape == (len(self),):
            return np.flatnonzero(rows)
        if rows.dtype.kind not in "iu" and rows.size:
            raise IndexError(f"rows are numbered by whole numbers, not by {rows.dtype}")
        rows = rows.astype(np.int64)
        rows = np.where(rows < 0, rows + len(self), rows)
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
            raise IndexError(f"a row that is none of {len(self)}")
        return rows

    def _range(self, start: int, stop: int) -> Array:
        stop = max(start, stop)
        first = int(np.searchsorted(self.starts, start, "right")) - 1
        last = max(first, int(np.searchsorted(self.starts, stop, "left")) - 1)
        read = [
            self.parts[i][max(0, start - self.starts[i]) : stop - self.starts[i]]
            for i in range(first, last + 1)
        ]
        return read[0] if len(read) == 1 else np.concatenate(read)

    def _gather(self, rows: npt.NDArray[np.int64]) -> Array:
        which = np.searchsorted(self.starts, rows, "right") - 1
        out = np.empty((len(rows), *self.shape[1:]), self.dtype)
        if (np.diff(which) >= 0).all():
            ends = np.searchsorted(which, np.arange(len(self.parts) + 1))
            for i in np.unique(which).tolist():
                a, b = ends[i], ends[i + 1]
                np.take(self.parts[i], rows[a:b] - self.starts[i], 0, out[a:b], "clip")
        else:
            for i in np.unique(which).tolist():
                own = np.flatnonzero(which == i)
                out[own] = self.parts[i][rows[own] - self.starts[i]]
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        whole = np.concatenate(self.parts)
        return whole if dtype is None else whole.astype(dtype, copy=False)
