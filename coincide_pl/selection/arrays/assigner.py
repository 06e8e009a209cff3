"""The nearest centroid of every row, in blocks and by several processes, and sums by cluster."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from coincide_pl.processes import gathered, group_size, own_share, refuse, summed
from coincide_pl.selection.arrays.dtypes import Array, Bools, Floats, Ints
from coincide_pl.selection.arrays.exact import unit_centroids
from coincide_pl.selection.arrays.nearest import MANY, Nearest, fastest, take
from coincide_pl.selection.arrays.rows import Rows, spans
from coincide_pl.selection.arrays.table import Table
from coincide_pl.selection.cache import Checkpointer

FRESH = 1024
"""Rows without a cluster so far whose sums are taken together."""


@dataclass(frozen=True)
class KMeansConfig:
    """Settings that every step of a clustering shares.

    Attributes:
        num_iterations: of Lloyd's algorithm at most.
        seed: of all draws.
        memory: bytes for blocks of rows and products.
        device: where products are computed.
        checkpointer: keeps what an interrupted clustering goes on from; None for nothing.
    """

    num_iterations: int
    seed: int
    memory: int
    device: torch.device
    checkpointer: Checkpointer | None = None


class Assigner:
    """What Faiss's Lloyd loop asks of a data set, over rows that are read in blocks.

    A row is compared with all centroids only when its own has moved since the last time; otherwise
    with those that have, as no other can be nearer now. The sums of each cluster's rows are kept,
    and only rows that change their cluster are taken from one and added to the other; being exact,
    they are what a sum from the start would be.

    Attributes:
        centroids: [K, d], from which the next iteration starts.
        labels: int64 [n], each row's nearest centroid at the last assignment; -1 before the first.
        moved: rows that the last assignment gave to another centroid.
    """

    def __init__(
        self, rows: Rows, num_clusters: int, config: KMeansConfig, sums: bool = True
    ) -> None:
        """Makes room for what is known of each row; reads nothing yet.

        Args:
            rows: to cluster.
            num_clusters: K.
            config: memory and device are used.
            sums: whether sums are wanted.
        """
        self.rows, self.config = rows, config
        n = len(rows)
        self.own = own_share(n)
        self.labels = np.full(n, -1, np.int64)
        self.scores = np.full(n, -np.inf, np.float32)
        self.norms = np.full(n, np.nan, np.float32)
        self.sums = np.zeros((num_clusters, rows.width)) if sums else None
        self.unit = np.full((num_clusters, rows.width), np.nan, np.float32)
        self.moved = n
        self.dtype = fastest(config.device) if num_clusters >= MANY else torch.float32
        own = self.own.stop - self.own.start
        worth = config.device.type == "cpu" and 4 * num_clusters <= rows.width
        fits = 16 * own * num_clusters <= config.memory and self.dtype == torch.float32
        self.table = Table(own, num_clusters) if worth and fits and sums else None

    def count(self) -> int:
        """How many rows there are, N, as Faiss asks."""
        return len(self.rows)

    def dim(self) -> int:
        """How wide a row is, as Faiss asks."""
        return self.rows.width

    def get_subset(self, indices: Ints) -> Floats:
        """The centroids to start from; Faiss would take the rows that it names."""
        return self.centroids

    centroids: Floats

    def assign_to(
        self, centroids: Floats, weights: None = None
    ) -> tuple[Ints, Floats, Floats | None]:
        """Each row's nearest centroid, int64 [n], about its cosine, and the sums of rows [K, d]."""
        unit = unit_centroids(centroids)
        changed = (unit != self.unit).any(1)
        if not changed.any():
            self.moved = 0
            return self.labels, self.scores, self.sums
        self.unit = unit
        sums = self.sums
        if group_size()[0] > 1 and sums is not None:
            sums = np.zeros_like(sums)
        before = self.labels[self.own].copy()
        bad = -1
        if self.table is None:
            bad = self._compare(unit, changed, sums)
        else:
            unsure = self.table.narrow(unit, changed, self.labels[self.own])
            if unsure is None:
                bad = self._fill(self.table, unit, sums)
            else:
                self._decide(self.table, unit, unsure, before, sums)
        refuse(bad)
        self._exchange(sums)
        moved = float((self.labels[self.own] != before).sum())
        self.moved = int(summed(np.array([moved]))[0])
        return self.labels, self.scores, self.sums

    def _compare(self, unit: Floats, changed: Bools, sums: Floats | None) -> int:
        """Compares all rows with all centroids, or where their own stays with those that changed.

        Returns:
            The number of a record that is not finite, or -1.
        """
        every = Nearest(unit, np.arange(len(unit)), self.dtype, self.config.device)
        some = Nearest(unit, np.flatnonzero(changed), self.dtype, self.config.device)
        bad = -1
        for span, block in self.rows.blocks(self._height(len(unit)), self.own):
            start = span.start
            old = self.labels[span].copy()
            if (old < 0).any():
                bad = max(bad, zero_unless_finite(block, self.rows, start))
            norms = self._norms(block, start)
            lost = changed[old] | (old < 0)
            for near, those in ((every, lost), (some, ~lost)):
                if those.any():
                    at = np.flatnonzero(those) + start
                    own = None if near is every else (self.labels[at], self.scores[at])
                    found = near(take(block, those), norms[those], own)
                    self.labels[at], self.scores[at] = found
            if sums is not None:
                shift(sums, block, old, self.labels[span])
        return bad

    def _fill(self, table: Table, unit: Floats, sums: Floats | None) -> int:
        """Compares all rows with all centroids, and keeps the products.

        Returns:
            The number of a record that is not finite, or -1.
        """
        every = Nearest(unit, np.arange(len(unit)), self.dtype, self.config.device)
        bad, first = -1, self.own.start
        for span, block in self.rows.blocks(self._height(len(unit)), self.own):
            old = self.labels[span].copy()
            if (old < 0).any():
                bad = max(bad, zero_unless_finite(block, self.rows, span.start))
            norms = self._norms(block, span.start)
            here = slice(span.start - first, span.stop - first)
            products = every.products(torch.from_numpy(block))
            self.labels[span], self.scores[span] = every(block, norms, None, products)
            table.products[here], table.norms[here] = products.numpy(), norms
            if sums is not None:
                shift(sums, block, old, self.labels[span])
        table.scores, table.slack = self.scores[self.own].copy(), every.error * table.norms
        table.renew(unit, every.error)
        return bad

    def _decide(
        self, table: Table, unit: Floats, unsure: Bools, before: Ints, sums: Floats | None
    ) -> None:
        """Compares the rows that the table leaves unsure, and reads what moves."""
        every = Nearest(unit, np.arange(len(unit)), self.dtype, self.config.device)
        labels, first, height = self.labels[self.own], self.own.start, self._height(len(unit))
        read = np.flatnonzero(unsure | (labels != before))
        groups = [read[span] for span in spans(len(read), height)]
        for at, block in zip(
            groups, self.rows.gathers(group + first for group in groups), strict=True
        ):
            open_ = unsure[at]
            if open_.any():
                rows = at[open_]
                labels[rows], table.scores[rows] = every(take(block, open_), table.norms[rows])
                table.slack[rows] = every.error * table.norms[rows]
            if sums is not None:
                shift(sums, block, before[at], labels[at])
        self.scores[self.own] = table.scores

    def _norms(self, block: Array, start: int) -> Floats:
        span = slice(start, start + len(block))
        if np.isnan(self.norms[span]).any():
            self.norms[span] = torch.from_numpy(block).float().norm(dim=1).numpy()
        return self.norms[span]

    def _height(self, num_clusters: int) -> int:
        row = 2 * self.rows.row_bytes + 16 * self.rows.width + 8 * num_clusters
        return max(1, min(65536, self.config.memory // 2 // row))

    def _exchange(self, sums: Floats | None) -> None:
        """Give every process all labels, scores and sums."""
        if group_size()[0] == 1:
            return
        if self.sums is not None and sums is not None:
            self.sums += summed(sums)
        for array in (self.labels, self.scores):
            array[:] = gathered(array)


def shift(sums: Floats, block: Array, old: Ints, new: Ints) -> None:
    """Take rows from the sums of their old clusters (-1: none) and add them to their new ones.

    Float16 numbers are multiples of 2^-24, so their sums are exact in float32 too as long as these
    stay below 1: many new rows are first added up so.
    """
    total = torch.from_numpy(sums)
    moved = np.flatnonzero(old != new)
    step = FRESH if (old < 0).all() else 256
    for start in range(0, len(moved), step):
        some = moved[start : start + step]
        rows, to = torch.from_numpy(block[some]), torch.from_numpy(new[some])
        most = float(np.bincount(new[some]).max()) * float(rows.abs().max())
        if step == FRESH and rows.dtype == torch.float16 and most < 1:
            total += torch.zeros(total.shape).index_add_(0, to, rows.float())
            continue
        for part in spans(len(some), 256):
            wide = rows[part].double()
            total.index_add_(0, to[part], wide)
            had = np.flatnonzero(old[some][part] >= 0)
            if len(had):
                left = torch.from_numpy(old[some][part][had])
                total.index_add_(0, left, wide[had], alpha=-1)


def zero_unless_finite(block: Array, rows: Rows, start: int) -> int:
    """Set rows with NaN or infinity to zero; the number of the last one's record, or -1."""
    if torch.isfinite(torch.from_numpy(block).sum(dtype=torch.float64)):
        return -1
    bad = np.flatnonzero(~np.isfinite(block).all(1))
    block[bad] = 0
    row = start + int(bad[-1])
    return rows.number(row)
