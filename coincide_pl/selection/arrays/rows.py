"""Rows of large feature matrices, read a block at a time into buffers of their own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from coincide_pl.errors import SelectionError
from coincide_pl.processes import group_size, own_share
from coincide_pl.selection.arrays.dtypes import Array, ArrayLike, Floats, Ints, array_of
from coincide_pl.signals.parted import PartedArray

MEMORY = 2 << 30
"""Bytes of rows, products and kernels held at once, unless told otherwise."""
FLOATS = MEMORY // 64
"""Numbers of a block that is read as floats, 128 MiB in float32."""
BLOCK = 16 << 20
"""Bytes of rows read at once, or little more: allocators hand out such blocks again, while each
larger one is new memory, whose pages take longer to come than to be filled."""


class Part:
    """Some rows of an array, read when they are asked for; `Rows` takes it as it takes an array."""

    def __init__(self, whole: Array, rows: Ints) -> None:
        """Reads nothing yet.

        Args:
            whole: [N, ...], such as a memory map.
            rows: int64 [n] ascending.
        """
        self.whole, self.rows = whole, rows
        self.shape, self.dtype, self.ndim = (len(rows), *whole.shape[1:]), whole.dtype, whole.ndim

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Array:
        """What the array of these rows would give; also of some of what is in each."""
        first, *others = index if isinstance(index, tuple) else (index,)
        if isinstance(first, slice):
            found: Array = self.whole[self.rows[first]][(slice(None), *others)]
        else:
            found = self.whole[(self.rows[first], *others)]
        return found

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        return np.asarray(self.whole[self.rows], dtype)


class Rows:
    """Rows [n, D] of an array in memory or in memory-mapped `.npy` files, or of several of them.

    Several arrays [n, D_i] are read as one of [n, ΣD_i], side by side. Rows are copied out of the
    memory maps: pages that were read count as the process's memory, and the system takes them back
    when it needs them.
    """

    def __init__(
        self, *features: ArrayLike | Part, chosen: Ints | None = None, name: str = "features"
    ) -> None:
        """Reads nothing yet.

        Args:
            features: [N, D_i] of a float dtype: arrays, memory maps, or tensors in memory; or the
                same rows of each.
            chosen: int64 [n] ascending, which of the N rows this is about (default: all).
            name: what a message calls them.

        Raises:
            SelectionError: they are no numbers, or no rows of them.
        """
        if isinstance(features[0], Part):
            chosen = features[0].rows if chosen is None else features[0].rows[chosen]
        self.parts: list[Array] = [
            part.whole if isinstance(part, Part) else _array(part) for part in features
        ]
        for part in self.parts:
            if part.ndim != 2 or len(part) != len(self.parts[0]):
                raise SelectionError(f"{name} must be rows [N, D], not of shape {part.shape}")
            if part.dtype.kind not in "fi" or part.dtype.itemsize > 8 or not part.dtype.isnative:
                raise SelectionError(f"{name} must be float numbers, not {part.dtype}")
        self.chosen = chosen
        self.width: int = sum(part.shape[1] for part in self.parts)

    @classmethod
    def of(cls, features: ArrayLike | Part | Rows) -> Rows:
        """Rows of an array, or the rows given."""
        return features if isinstance(features, Rows) else cls(features)

    def __len__(self) -> int:
        return len(self.parts[0]) if self.chosen is None else len(self.chosen)

    @property
    def own(self) -> slice:
        """The rows that this process works on."""
        return own_share(len(self))

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a block of them."""
        return np.result_type(*(part.dtype for part in self.parts))

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return sum(part.shape[1] * part.dtype.itemsize for part in self.parts)

    def subset(self, rows: Ints) -> Rows:
        """Some of these rows, ascending, as rows of their own."""
        return Rows(*self.parts, chosen=rows if self.chosen is None else self.chosen[rows])

    def number(self, row: int) -> int:
        """The place of a row in the whole arrays."""
        return row if self.chosen is None else int(self.chosen[row])

    def block(self, start: int, stop: int) -> Array:
        """Consecutive rows, [stop - start, D]."""
        return self.gather(np.arange(start, min(stop, len(self))))

    def gather(self, rows: Ints) -> Array:
        """Some rows, [len(rows), D]; ascending ones are read the fastest from a disk."""
        if self.chosen is not None:
            rows = self.chosen[rows]
        read = [part[rows] for part in self.parts]
        return read[0] if len(read) == 1 else np.concatenate(read, 1)

    def blocks(self, height: int, share: slice | None = None) -> Iterator[tuple[slice, Array]]:
        """All rows, or a share, in consecutive blocks, each read while the last is worked on."""
        first, last = (0, len(self)) if share is None else (share.start, share.stop)
        parts = [slice(s.start + first, s.stop + first) for s in spans(last - first, height)]
        groups = (np.arange(s.start, s.stop) for s in parts)
        yield from zip(parts, self.gathers(groups), strict=True)

    def gathers(self, groups: Iterator[Ints]) -> Iterator[Array]:
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

    def delivered(self, wanted: Sequence[Ints], height: int) -> Array:
        """Rows that this process wants, wherever they are; all processes must ask together.

        Args:
            wanted: for each process the rows that it wants, ascending; the same everywhere.
            height: rows that a process sends or receives at once, about.
        """
        return self.gather(wanted[group_size()[1]])

    def floats(
        self, rows: slice | Ints, normalize: bool, dtype: torch.dtype = torch.float32
    ) -> Floats:
        """Rows in any order as floats, contiguous, of norm 1 if so wanted; a row of zeros stays."""
        if self.chosen is not None:
            rows = self.chosen[rows]
        read = [part[rows] for part in self.parts]
        whole = read[0] if len(read) == 1 else np.concatenate(read, 1)
        block = torch.from_numpy(np.require(whole, requirements="W")).to(dtype)  # never the file's
        found: Floats = (
            functional.normalize(block, dim=1, out=block) if normalize else block
        ).numpy()
        return found

    def float_spans(self, count: int | None = None) -> Iterator[slice]:
        """Slices over all rows, or over `count`, each of at most `FLOATS` numbers."""
        return spans(len(self) if count is None else count, max(1, FLOATS // max(1, self.width)))


def centroid_cosines(rows: Rows, centroids: Floats, labels: Ints) -> Floats:
    """The cosine of each row with the centroid of its cluster.

    Args:
        rows: [N, D].
        centroids: float32 [K, D], of norm 1.
        labels: int64 [N].

    Returns:
        float32 [N].
    """
    out = np.empty(len(labels), np.float32)
    for span in rows.float_spans():
        own = rows.floats(span, normalize=True)
        out[span] = np.einsum("nd,nd->n", own, centroids[labels[span]])
    return out


def spans(count: int, height: int) -> Iterator[slice]:
    """Slices over `count` rows, of at most `height` rows each."""
    for start in range(0, count, height):
        yield slice(start, min(start + height, count))


def _array(given: ArrayLike) -> Array:
    return given if isinstance(given, PartedArray) else array_of(given)
