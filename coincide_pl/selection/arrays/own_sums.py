"""Sums of the rows of each cluster, split over the processes by cluster."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from coincide_pl.processes import exchanged, largest, own_share, shares
from coincide_pl.selection.arrays.dtypes import Array, Floats, Ints
from coincide_pl.selection.arrays.exact import CACHED, widened
from coincide_pl.selection.arrays.rows import Rows, spans

WIDE = 1 << 13
"""Numbers of a row from which on rows are added one by one, those of a cluster after one another:
its sum stays in the cache, and `index_add_` takes longer. Narrow rows are too many for that."""


class OwnSums:
    """The sums of rows by cluster, of which each process holds those of its own clusters.

    Attributes:
        count: K, clusters of all processes.
        own: the clusters of this process.
        values: float64 [own clusters, D].
    """

    def __init__(self, num_clusters: int, width: int, memory: int) -> None:
        """Starts from zero.

        Args:
            num_clusters: K.
            width: D.
            memory: bytes; an eighth of it is sent at once, and an eighth received.
        """
        self.count, self.own = num_clusters, own_share(num_clusters)
        self.values = np.zeros((self.own.stop - self.own.start, width))
        every = len(shares(num_clusters))
        self.height = max(1, memory // 8 // (8 * max(1, width) * every))

    def add(self, clusters: Ints, partial: Callable[[Ints], Floats], float16: bool) -> None:
        """Adds what each process has come to, sent to the owners of the clusters in pieces.

        Args:
            clusters: int64 ascending, those to which this process adds something.
            partial: what it adds to some of these, float64 [m, D].
            float16: whether it is sums of float16 numbers. They are multiples of 2^-24, so where
                all are below 1, float32 holds them exactly, and half as many bytes are sent.
        """
        owners = shares(self.count)
        most = max(owner.stop - owner.start for owner in owners)
        for span in spans(most, self.height):
            pieces = []
            for owner in owners:
                first, last = owner.start + span.start, min(owner.start + span.stop, owner.stop)
                pieces.append(clusters[slice(*np.searchsorted(clusters, [first, last]))])
            sums = partial(np.concatenate(pieces))
            size = float(np.abs(sums).max(initial=0)) if float16 else 1.0
            if largest(np.array([size]))[0] < 1:
                sums = sums.astype(np.float32)
            cuts = np.cumsum([len(piece) for piece in pieces])[:-1]
            for which, part in zip(exchanged(pieces), exchanged(np.split(sums, cuts)), strict=True):
                self.values[which - self.own.start] += part


def moved_sums(
    rows: Rows, old: Ints, new: Ints, height: int
) -> tuple[Ints, Callable[[Ints], Floats]]:
    """What the moves of own rows add to the sums of clusters, for `OwnSums.add`.

    Args:
        rows: of which those of this process are read again, where they have moved.
        old: int64 [own rows], the cluster of each before; -1 for none.
        new: int64 [own rows], its cluster now.
        height: rows that are read at once.

    Returns:
        The clusters, int64 ascending, and what gives the sums of some of them.
    """
    moved = np.flatnonzero(old != new)
    touched = np.union1d(new[moved], old[moved])
    touched = touched[touched >= 0]

    def partial(clusters: Ints) -> Floats:
        slot = np.full(int(touched.max(initial=-1)) + 2, len(clusters))  # the last: any other one
        slot[clusters] = np.arange(len(clusters))
        slot[-1] = -1
        out, into = slot[old[moved]], slot[new[moved]]
        read = np.flatnonzero((out < len(clusters)) & (out >= 0) | (into < len(clusters)))
        sums = np.zeros((len(clusters) + 1, rows.width))
        groups = [read[span] for span in spans(len(read), height)]
        blocks = rows.gathers(moved[group] + rows.own.start for group in groups)
        for group, block in zip(groups, blocks, strict=True):
            shift(sums, block, out[group], into[group])
        return sums[:-1]

    return touched, partial


def shift(sums: Floats, block: Array, old: Ints, new: Ints) -> None:
    """Take rows from the sums of their old clusters (-1: none) and add them to their new ones."""
    total = torch.from_numpy(sums)
    moved = np.flatnonzero(old != new)
    if sums.shape[1] >= WIDE:
        for place in moved[np.argsort(new[moved])].tolist():
            row = widened(block[place])
            total[new[place]].add_(row)
            if old[place] >= 0:
                total[old[place]].sub_(row)
        return
    for part in spans(len(moved), max(1, CACHED // max(1, sums.shape[1]))):
        some = moved[part]
        rows, before = widened(block[some]), old[some]
        total.index_add_(0, torch.from_numpy(new[some]), rows)
        had = np.flatnonzero(before >= 0)
        if len(had):
            total.index_add_(0, torch.from_numpy(before[had]), rows[had], alpha=-1)
