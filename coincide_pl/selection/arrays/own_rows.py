"""Rows that are split over the processes: each holds its share in memory, and no others."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coincide_pl.processes import exchanged, group_size, largest, shares
from coincide_pl.selection.arrays.dtypes import Array, Ints
from coincide_pl.selection.arrays.rows import Rows


class OwnRows(Rows):
    """Rows [n, D], of which this process holds those from `held.start` to `held.stop`.

    They have the numbers and the length that they have all together; only those held can be read.
    """

    def __init__(self, values: Array, count: int, chosen: Ints | None = None) -> None:
        """Takes what this process holds.

        Args:
            values: [own share of the count, D].
            count: rows of all processes.
            chosen: int64 [n] ascending, which of all rows this is about (default: all).
        """
        super().__init__(values)
        self.values, self.count, self.chosen = values, count, chosen
        self.held = shares(count)[group_size()[1]]

    def __len__(self) -> int:
        return self.count if self.chosen is None else len(self.chosen)

    @property
    def own(self) -> slice:
        """The rows that this process holds."""
        return self._between(self.held)

    def _between(self, held: slice) -> slice:
        if self.chosen is None:
            return held
        start, stop = np.searchsorted(self.chosen, [held.start, held.stop]).tolist()
        return slice(start, stop)

    def subset(self, rows: Ints) -> OwnRows:
        """Some of these rows, ascending, as rows of their own; each stays where it is."""
        chosen = rows if self.chosen is None else self.chosen[rows]
        return OwnRows(self.values, self.count, chosen)

    def gather(self, rows: Ints) -> Array:
        """Rows that this process holds, [len(rows), D]."""
        rows = rows if self.chosen is None else self.chosen[rows]
        found: Array = self.values[rows - self.held.start]
        return found

    def delivered(self, wanted: Sequence[Ints], height: int) -> Array:
        """Rows that this process wants, each sent by the one that holds it."""
        ranks, rank = group_size()
        holds = self.own
        asked = [some[slice(*np.searchsorted(some, [holds.start, holds.stop]))] for some in wanted]
        step = max(1, height // ranks)
        most = int(largest(np.array([max(map(len, asked))]))[0])
        found = np.empty((len(wanted[rank]), self.width), self.values.dtype)
        ends = [
            np.searchsorted(wanted[rank], self._between(share).start)
            for share in shares(self.count)
        ]
        for start in range(0, most, step):
            sent = [self.gather(some[start : start + step]) for some in asked]
            for end, part in zip(ends, exchanged(sent), strict=True):
                found[end + start : end + start + len(part)] = part
        return found
