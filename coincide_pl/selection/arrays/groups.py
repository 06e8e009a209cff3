"""Rows whose nearest centroid bounds leave open, compared in groups with the few that it may be."""

from __future__ import annotations

import numpy as np
import torch

from coincide_pl.selection.arrays.dtypes import Array, Bools, Floats, Ints
from coincide_pl.selection.arrays.nearest import Nearest, in_stretches
from coincide_pl.selection.arrays.rows import spans
from coincide_pl.selection.arrays.table import Table

GROUP = 64
"""Rows whose products are computed together, with all centroids that one of them may be near."""
FEW = 12
"""Centroids of a group that are compared at once: with more, first come the rows' own ones."""


class Groups:
    """Finds the nearest centroids of rows that a table leaves open.

    Rows of one cluster mostly have the same few centroids to be compared with, so they form groups
    whose products are small matrices. First comes each row's own centroid: its product ends most
    comparisons.
    """

    def __init__(self, table: Table, changed: Bools, near: Nearest) -> None:
        """Makes room for one group.

        Args:
            table: of bounds, with the centroids of now.
            changed: bool [K], centroids that are others than when the labels were found.
            near: all centroids of now.
        """
        self.table, self.changed, self.near = table, changed, near
        width = near.unit.shape[1]
        self._rows = torch.empty(GROUP, width)
        self._some = torch.empty(GROUP, width)
        self._centroids = torch.empty(len(near.unit), width)

    def decide(self, block: Array, at: Ints, labels: Ints) -> None:
        """Finds the labels of rows.

        Args:
            block: [b, d], the rows, alike ones next to each other.
            at: int64 [b], which rows of the table these are.
            labels: int64 [n] of all rows of the table, changed in place.
        """
        for span in spans(len(at), GROUP):
            some = torch.from_numpy(block[span])
            self._group(self._rows[: len(some)].copy_(some), at[span], labels)

    def _group(self, rows: torch.Tensor, at: Ints, labels: Ints) -> None:
        table, own, every = self.table, labels[at], np.arange(len(at))
        products = np.full((len(at), len(self.changed)), -np.inf, np.float32)
        near = table.open(*table.bounds(at), own, self.changed)
        near[every, own] = True
        if near.any(0).sum() > FEW:
            mine = np.unique(own)
            self._multiply(products, rows, every, at, mine)
            near = table.open(*table.bounds(at), own, self.changed)  # with what was just learned
            near[:, mine] = False
        left = np.flatnonzero(near.any(1))
        if len(left) > len(at) // 2:
            self._multiply(products, rows, every, at, np.flatnonzero(near.any(0)))
        elif len(left):
            some = self._some[: len(left)]
            torch.index_select(rows, 0, torch.from_numpy(left), out=some)
            self._multiply(products, some, left, at, np.flatnonzero(near.any(0)))
        found = self.near(rows.numpy(), table.norms[at], None, torch.from_numpy(products))
        labels[at], _ = found

    def _multiply(
        self, products: Floats, rows: torch.Tensor, places: Ints, at: Ints, columns: Ints
    ) -> None:
        """Computes products of some rows with some centroids, and has the table learn them."""
        centroids = self._centroids[: len(columns)]
        torch.index_select(self.near.unit, 0, torch.from_numpy(columns), out=centroids)
        found = in_stretches(rows, centroids).numpy()
        products[np.ix_(places, columns)] = found
        self.table.learn(at[places], columns, found)
