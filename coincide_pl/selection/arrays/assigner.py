"""The nearest centroid of every row, in blocks and by several processes, and sums by cluster."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from threading import Lock

import numpy as np
import torch

from coincide_pl.processes import group_size, joined, own_share, passed, refuse, summed
from coincide_pl.selection.arrays.dtypes import Array, Bools, Floats, Ints
from coincide_pl.selection.arrays.exact import CACHED
from coincide_pl.selection.arrays.groups import Groups
from coincide_pl.selection.arrays.nearest import MANY, Nearest, fastest, take
from coincide_pl.selection.arrays.own_sums import OwnSums, moved_sums, shift
from coincide_pl.selection.arrays.parallel import over
from coincide_pl.selection.arrays.rows import BLOCK, Rows, spans
from coincide_pl.selection.arrays.table import Table
from coincide_pl.selection.cache import Checkpointer


@dataclass(frozen=True)
class KMeansConfig:
    """Settings that every step of a clustering shares.

    Attributes:
        num_iterations: of Lloyd's algorithm at most.
        seed: of all draws.
        memory: bytes for blocks of rows and products.
        device: where products are computed.
        checkpointer: keeps what an interrupted clustering goes on from; None for nothing.
        fit_rows: drawn to train on; None for 256 a cluster.
    """

    num_iterations: int
    seed: int
    memory: int
    device: torch.device
    checkpointer: Checkpointer | None = None
    fit_rows: int | None = None


class Assigner:
    """The nearest centroid of each of this process's rows, and the sums of rows by cluster.

    Rows stay with their process; centroids and sums belong to the process that owns the cluster. A
    row is compared with all centroids only when its own has moved since the last time; otherwise
    with those that have, as no other can be nearer now. The sums of each cluster's rows are kept,
    and only rows that change their cluster are taken from one and added to the other; being exact,
    they are what a sum from the start would be.

    Attributes:
        own: the rows of this process.
        labels: int64 [own rows], each one's nearest centroid at the last assignment; -1 before the
            first.
        sums: of the rows of each cluster.
        moved: rows of all processes that the last assignment gave to another centroid.
        whole: whether this process holds all centroids while it compares, for they fit in memory.
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
        self.rows, self.config, self.count = rows, config, num_clusters
        self.own, self.clusters = rows.own, own_share(num_clusters)
        own = self.own.stop - self.own.start
        self.whole = fits_whole(num_clusters, rows.width, config.memory)
        self.labels = np.full(own, -1, np.int64)
        self.scores = np.full(own, -np.inf, np.float32 if self.whole else np.float64)
        self.norms = np.full(own, np.nan, np.float32)
        self.sums = OwnSums(num_clusters, rows.width, config.memory) if sums else None
        held = num_clusters if self.whole else self.clusters.stop - self.clusters.start
        self.unit = np.full((held, rows.width), np.nan, np.float32)
        self.moved = len(rows)
        self.dtype = fastest(config.device) if num_clusters >= MANY else torch.float32
        worth = config.device.type == "cpu" and 4 * num_clusters <= rows.width
        fits = 16 * own * num_clusters <= config.memory and self.dtype == torch.float32
        self.table = Table(own, num_clusters) if worth and fits and sums and self.whole else None

    def sizes(self) -> Ints:
        """How many rows of all processes each cluster has, int64 [K]."""
        return summed(np.bincount(self.labels, minlength=self.count))

    def means(self, sizes: Ints) -> Floats:
        """Means of the rows of the clusters that this process owns, float64 [own clusters, D].

        Args:
            sizes: int64 [K]; the mean of an empty cluster is zero.
        """
        assert self.sums is not None
        divisor = np.maximum(sizes[self.clusters], 1).astype(np.float32)
        return self.sums.values / divisor[:, None]

    def assign_to(self, unit: Floats) -> None:
        """Finds each row's nearest centroid, and the sums of rows.

        Args:
            unit: float32 [own clusters, D] of norm 1, the centroids that this process owns.
        """
        held = self.unit[self.clusters] if self.whole else self.unit
        mine = (unit != held).any(1)
        changed = joined(mine)
        if not changed.any():
            self.moved = 0
            return
        if group_size()[0] == 1 or not self.whole:
            self.unit = unit
        else:
            self.unit = self.unit.copy()  # the table keeps what was
            self.unit[changed] = joined(unit[mine])
        before, bad = self.labels.copy(), -1
        sums: Floats | None = None
        if self.sums is not None and self.whole:
            alone = group_size()[0] == 1
            sums = self.sums.values if alone else np.zeros((self.count, self.rows.width))
        if not self.whole:
            bad = self._pass(unit, changed)
        elif self.table is None:
            bad = self._compare(self.unit, changed, sums)
        elif self.table.unit is None:
            bad = self._fill(self.table, self.unit, sums)
        else:
            self._decide(self.table, self.unit, changed, before, sums)
        refuse(bad)
        if self.sums is not None and sums is not self.sums.values:
            clusters, partial = moved_sums(self.rows, before, self.labels, self.height(1))
            some = partial if sums is None else sums.__getitem__
            self.sums.add(clusters, some, self.rows.dtype == np.float16)
        self.moved = int(summed(np.array([(self.labels != before).sum()]))[0])

    def _compare(self, unit: Floats, changed: Bools, sums: Floats | None) -> int:
        """Compares all rows with all centroids, or where their own stays with those that changed.

        Returns:
            The number of a record that is not finite, or -1.
        """
        every = Nearest(unit, np.arange(len(unit)), self.dtype, self.config.device)
        some = Nearest(unit, np.flatnonzero(changed), self.dtype, self.config.device)
        bad = -1
        for span, block in self.rows.blocks(self.height(len(unit)), self.own):
            here = slice(span.start - self.own.start, span.stop - self.own.start)
            old, bad = self.labels[here].copy(), max(bad, self._measure(block, span.start))
            norms = self.norms[here]
            lost = changed[old] | (old < 0)
            for near, those in ((every, lost), (some, ~lost)):
                if those.any():
                    at = np.flatnonzero(those) + here.start
                    own = None if near is every else (self.labels[at], self.scores[at])
                    found = near(take(block, those), norms[those], own)
                    self.labels[at], self.scores[at] = found
            if sums is not None:
                shift(sums, block, old, self.labels[here])
        return bad

    def _pass(self, unit: Floats, changed: Bools) -> int:
        """Compares all rows with the centroids of all processes, which come in blocks.

        Returns:
            The number of a record that is not finite, or -1.
        """
        lost, bad = changed[self.labels] | (self.labels < 0), -1
        self.labels[lost], self.scores[lost] = self.count, -np.inf
        height = max(1, self.config.memory // 4 // (12 * max(1, self.rows.width)))
        for numbers, centroids in passed(unit, self.count, height):
            every = Nearest(centroids, np.arange(len(centroids)), self.dtype, self.config.device)
            moved = np.flatnonzero(changed[numbers])
            some = Nearest(centroids, moved, self.dtype, self.config.device)
            for span, block in self.rows.blocks(self.height(len(centroids)), self.own):
                here = slice(span.start - self.own.start, span.stop - self.own.start)
                bad, norms = max(bad, self._measure(block, span.start)), self.norms[here]
                for near, those in ((every, lost[here]), (some, ~lost[here])):
                    if those.any() and len(near.numbers):
                        at = np.flatnonzero(those) + here.start
                        found = near.improved(take(block, those), norms[those], self.scores[at])
                        row, number, score = found
                        number += numbers.start
                        to = at[row]
                        nearer = (score > self.scores[to]) | (number < self.labels[to])
                        self.labels[to[nearer]] = number[nearer]
                        self.scores[to[nearer]] = score[nearer]
        return bad

    def _fill(self, table: Table, unit: Floats, sums: Floats | None) -> int:
        """Compares all rows with all centroids, and keeps the products.

        Returns:
            The number of a record that is not finite, or -1.
        """
        every = Nearest(unit, np.arange(len(unit)), self.dtype, self.config.device)
        adding = Lock()

        def fill(read: tuple[slice, Array]) -> int:
            span, block = read
            here = slice(span.start - self.own.start, span.stop - self.own.start)
            old, bad = self.labels[here].copy(), self._measure(block, span.start)
            norms = self.norms[here]
            products = every.products(torch.from_numpy(block))
            self.labels[here], self.scores[here] = every(block, norms, None, products)
            table.rest[here], table.norms[here] = products.numpy(), norms
            if sums is not None:
                with adding:
                    shift(sums, block, old, self.labels[here])
            return bad

        bad = max(over(self.rows.blocks(self.height(len(unit)), self.own), fill), default=-1)
        table.begin(unit, every.error)
        return bad

    def _decide(
        self, table: Table, unit: Floats, changed: Bools, before: Ints, sums: Floats | None
    ) -> None:
        """Compares the rows that the table leaves open, and reads what moves."""
        table.move(unit)
        labels, first = self.labels, self.own.start
        unsure, second = table.narrow(changed, labels)
        near = Nearest(unit, np.arange(len(unit)), self.dtype, self.config.device)
        idle = deque(Groups(table, changed, near) for _ in range(torch.get_num_threads()))
        adding = Lock()
        read = np.flatnonzero(unsure | (labels != before))
        # Unsure rows come first, alike ones together.
        read = read[np.lexsort((second[read], labels[read], ~unsure[read]))]
        parts = [read[span] for span in spans(len(read), max(1, BLOCK // self.rows.row_bytes))]
        blocks = self.rows.gathers(at + first for at in parts)

        def decide(part: tuple[Ints, Array]) -> None:
            at, block = part
            groups, count = idle.pop(), int(unsure[at].sum())
            groups.decide(block[:count], at[:count], labels)
            idle.append(groups)
            if sums is not None:
                with adding:
                    shift(sums, block, before[at], labels[at])

        for _ in over(zip(parts, blocks, strict=True), decide):
            pass

    def _measure(self, block: Array, start: int) -> int:
        """Takes the norms of rows that are read for the first time, and sets bad rows to zero.

        Args:
            block: rows of this process, consecutive ones.
            start: the first one's number.

        Returns:
            The number of the record of the last row that is not finite, or -1.
        """
        known = self.norms[start - self.own.start :][: len(block)]
        if not np.isnan(known).any():
            return -1
        known[:] = norms_of(block)
        if np.isfinite(known).all():
            return -1
        bad = zero_unless_finite(block, self.rows, start)
        known[:] = norms_of(block)
        return bad

    def height(self, num_clusters: int) -> int:
        """Rows of a block, beside their products with some clusters."""
        row = 2 * self.rows.row_bytes + 16 * self.rows.width + 8 * num_clusters
        return max(1, min(65536, BLOCK // self.rows.row_bytes, self.config.memory // 2 // row))


def fits_whole(num_clusters: int, width: int, memory: int) -> bool:
    """Whether a process holds all centroids, with what it adds to their sums.

    A process without others always does: nobody else could hold a part.

    Args:
        num_clusters: K.
        width: D.
        memory: bytes, of which half are for this: 24 an entry, with copies of lower precision and
            what is underway.
    """
    return group_size()[0] == 1 or 24 * num_clusters * width <= memory // 2


def norms_of(block: Array) -> Floats:
    """The norms of rows [b, d], float32 [b]."""
    norms = np.empty(len(block), np.float32)
    for part in spans(len(block), max(1, CACHED // max(1, block.shape[1]))):
        norms[part] = torch.from_numpy(block[part]).float().norm(dim=1).numpy()
    return norms


def zero_unless_finite(block: Array, rows: Rows, start: int) -> int:
    """Set rows with NaN or infinity to zero; the number of the last one's record, or -1."""
    sums = torch.float32 if block.dtype == np.float16 else torch.float64  # without overflow
    parts = spans(len(block), max(1, CACHED // max(1, block.shape[1])))
    if all(torch.from_numpy(block[part]).to(sums).sum().isfinite() for part in parts):
        return -1
    bad = np.flatnonzero(~np.isfinite(block).all(1))
    block[bad] = 0
    row = start + int(bad[-1])
    return rows.number(row)
