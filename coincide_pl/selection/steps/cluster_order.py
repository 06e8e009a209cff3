"""Inside the clusters: kernel means and the order of picking, cluster by cluster from the store."""

from __future__ import annotations

import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress

from coincide_pl.processes import group_size, summed
from coincide_pl.selection.arrays.assigner import Keeper
from coincide_pl.selection.arrays.kmeans import KEEP_EVERY
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.steps.kernels import Kernel, fits, mean_density, members


@dataclass
class Within:
    """What is known of each cluster from its own rows.

    Rows stand cluster by cluster: those of cluster i at `starts[i]` to `starts[i + 1]`.

    Attributes:
        starts: int64 [K + 1].
        members: int64 [N], rows of the pool, ascending in each cluster.
        means: float64 [N], mean kernel of each member with its cluster.
        order: int64 [N], places of members in order of picking; the first `known` of a cluster.
        known: int64 [K], how many places of `order` are known; -1 where not even `means` are.
    """

    starts: np.ndarray
    members: np.ndarray
    means: np.ndarray
    order: np.ndarray
    known: np.ndarray

    @classmethod
    def unknown(cls, labels: np.ndarray, num_clusters: int) -> Within:
        """Before any row is read."""
        groups = members(labels, num_clusters)
        sizes = np.array([len(group) for group in groups])
        n = len(labels)
        return cls(
            np.append(0, np.cumsum(sizes)),
            np.concatenate(groups),
            np.zeros(n),
            np.zeros(n, np.int64),
            np.where(sizes > 0, -1, 0),
        )

    @property
    def sizes(self) -> np.ndarray:
        """Int64 [K]."""
        return np.diff(self.starts)

    def rows(self, cluster: int) -> np.ndarray:
        """Rows of the pool in a cluster, ascending."""
        return self.members[self.starts[cluster] : self.starts[cluster + 1]]

    def picked(self, cluster: int, count: int) -> np.ndarray:
        """The first `count` rows in order of picking; as many must be known."""
        start = self.starts[cluster]
        assert self.known[cluster] >= count
        return self.rows(cluster)[self.order[start : start + count]]

    def densities(self, include_self: bool) -> np.ndarray:
        """D, float64 [K]; 0 where a cluster is empty."""
        spans = itertools.pairwise(self.starts)
        return np.array([mean_density(self.means[a:b], include_self) for a, b in spans])


@dataclass(frozen=True)
class Reading:
    """How the rows of clusters are read and multiplied.

    Attributes:
        rows: of the pool.
        bandwidth: σ.
        memory: bytes of rows and kernels held at once.
        device: where rows are multiplied.
    """

    rows: Rows
    bandwidth: float
    memory: int
    device: torch.device


def read_clusters(
    within: Within,
    reading: Reading,
    wanted: np.ndarray | None = None,
    keeper: Keeper | None = None,
) -> bool:
    """Learn what is not known yet, in place.

    Clusters whose rows and kernel fit in memory are read some at a time, with their rows ascending
    over all of these, and put in order of picking to the last sample: any budget is then a look-up.
    A larger cluster is put in order as far as is wanted.

    Args:
        within: what is known.
        reading: how to read.
        wanted: int64 [K], places in the order that must be known (default: none in a cluster that
            does not fit).
        keeper: saves what is known now and then, and at the end.

    Returns:
        Whether anything was learned.
    """
    sizes = within.sizes
    wanted = np.zeros_like(sizes) if wanted is None else wanted
    every = np.flatnonzero(within.known < np.minimum(wanted, sizes))
    every = np.union1d(every, np.flatnonzero(within.known < 0))
    ranks, rank = group_size()
    # Each process takes clusters that follow each other, with as many rows as any other's.
    place = np.cumsum(sizes[every]) * ranks // max(1, int(sizes[every].sum()) + 1)
    missing = every[place == rank]
    small = [c for c in missing if fits(int(sizes[c]), reading.rows.row_bytes, reading.memory)]
    groups = list(_groups(small, sizes, reading))
    progress = Progress(console=Console(stderr=True), transient=True, disable=not _shown(keeper))
    saved = time.monotonic()
    with progress:
        task = progress.add_task(f"{len(missing)} clusters", total=float(sizes[missing].sum()))
        together = (np.sort(np.concatenate([within.rows(c) for c in g])) for g in groups)
        for group, block in zip(groups, reading.rows.gathers(together), strict=True):
            at = np.sort(np.concatenate([within.rows(c) for c in group]))
            for cluster in group:
                own = within.rows(cluster)
                _learn(within, cluster, reading, len(own), block[np.searchsorted(at, own)])
                progress.advance(task, len(own))
            if keeper is not None and time.monotonic() - saved > KEEP_EVERY:
                keeper.save("within", state(within))
                saved = time.monotonic()
        for cluster in sorted(set(missing.tolist()) - set(small)):
            _learn(within, cluster, reading, int(wanted[cluster]), None)
            progress.advance(task, float(sizes[cluster]))
            if keeper is not None:
                keeper.save("within", state(within))
    _exchange(within, every, missing)
    if keeper is not None and len(every):
        keeper.save("within", state(within))
    return len(every) > 0


def _exchange(within: Within, every: np.ndarray, mine: np.ndarray) -> None:
    """Give every process what each has learned."""
    if group_size()[0] == 1 or not len(every):
        return
    own, all_rows = (
        np.concatenate([np.arange(within.starts[c], within.starts[c + 1]) for c in clusters])
        if len(clusters)
        else np.zeros(0, np.int64)
        for clusters in (mine, every)
    )
    for array, rows, places in (
        (within.means, all_rows, own),
        (within.order, all_rows, own),
        (within.known, every, mine),
    ):
        learned = np.zeros_like(array)
        learned[places] = array[places]
        array[rows] = summed(learned)[rows]


def state(within: Within) -> dict[str, np.ndarray]:
    """What is known, as arrays to save."""
    return {"means": within.means, "order": within.order, "known": within.known}


def _learn(
    within: Within, cluster: int, reading: Reading, count: int, loaded: np.ndarray | None
) -> None:
    rows = reading.rows.subset(within.rows(cluster))
    kernel = Kernel(rows, reading.bandwidth, reading.memory, reading.device, loaded)
    span = slice(int(within.starts[cluster]), int(within.starts[cluster + 1]))
    if within.known[cluster] < 0:
        within.means[span] = kernel.means()
    within.order[span][:count] = kernel.greedy(count, within.means[span])
    within.known[cluster] = count


def _groups(clusters: list[int], sizes: np.ndarray, reading: Reading) -> Iterator[list[int]]:
    """Clusters in order, as many together as half of the memory holds rows of twice."""
    group: list[int] = []
    room = left = max(1, reading.memory // 4 // reading.rows.row_bytes)
    for cluster in clusters:
        if group and sizes[cluster] > left:
            yield group
            group, left = [], room
        group.append(cluster)
        left -= int(sizes[cluster])
    if group:
        yield group


def _shown(keeper: Keeper | None) -> bool:
    return keeper is not None and sys.stderr.isatty()
