"""Rows of a matrix around their mean, where a row of zeros stands for nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Bools, Floats
from coincide_pl.selection.arrays.rows import Rows

NUMBERS = 1 << 24
"""Numbers of a block that is held as float64, 128 MiB."""


@dataclass(frozen=True)
class Centered:
    """The n rows of [N, D] that are not zero, read in blocks, minus their mean.

    Sums are taken by numpy, block by block in one order, so they do not depend on threads.

    Attributes:
        rows: the n rows.
        there: bool [N], which rows these are.
        mean: float64 [D].
    """

    rows: Rows
    there: Bools
    mean: Floats

    @classmethod
    def of(cls, rows: Rows) -> Centered:
        """Reads all rows once, for their mean.

        Raises:
            SelectionError: a row holds NaN or infinity.
        """
        there = np.empty(len(rows), bool)
        total = np.zeros(rows.width)
        for span, block in rows.blocks(height(rows)):
            wide = block.astype(np.float64)
            sums = wide.sum(0)
            if not np.isfinite(sums).all():
                bad = rows.number(span.start + int(np.argmin(np.isfinite(wide).all(1))))
                raise SelectionError(f"the features of record {bad} hold NaN or infinity")
            there[span] = wide.any(1)
            total += sums
        return cls(rows.subset(np.flatnonzero(there)), there, total / max(1, there.sum()))

    def __len__(self) -> int:
        return len(self.rows)

    def blocks(self) -> Iterator[tuple[slice, Floats]]:
        """The rows minus their mean, float64, in consecutive blocks."""
        for span, block in self.rows.blocks(height(self.rows)):
            yield span, block - self.mean

    def units(self) -> Iterator[tuple[slice, Floats]]:
        """The same, each row of norm 1; one that equals the mean is zero."""
        for span, block in self.blocks():
            norms = np.sqrt(np.einsum("nd,nd->n", block, block))
            yield span, block / np.where(norms > 0, norms, 1)[:, None]


def height(rows: Rows) -> int:
    """Rows of a block; the width alone decides, so that sums are the same everywhere."""
    return max(1, NUMBERS // max(1, rows.width))
