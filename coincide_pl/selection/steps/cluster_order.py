"""What is known of clusters from their rows: kernel means, and the order of picking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from coincide_pl.processes import group_size, own_share, summed
from coincide_pl.progress import progress
from coincide_pl.selection.arrays.dtypes import Array, Arrays, Floats, Ints
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.cache import KEEP_EVERY, Checkpointer
from coincide_pl.selection.steps.kernels import Kernel, fits, members

STATE = "cluster_order"
"""Under this name the checkpointer keeps what is known."""


@dataclass(frozen=True)
class KnownCluster:
    """What is known of one cluster of n samples.

    Attributes:
        rows: int64 [n], its rows of the pool, ascending.
        means: float64 [n], mean kernel of each with all.
        others: float64 [n], sum of the kernel of each with the others.
        order: int64, places in `rows` in order of picking, as far as they are known.
    """

    rows: Ints
    means: Floats
    others: Floats
    order: Ints

    def __len__(self) -> int:
        return len(self.rows)

    def greedy(self, count: int) -> Ints:
        """The first `count` places in order of picking; as many must be known."""
        assert len(self.order) >= count
        return self.order[:count]


class ClusterOrder:
    """The clusters of some rows, each read once for its density and its order of picking.

    Rows stand cluster by cluster: those of cluster i at `starts[i]` to `starts[i + 1]`. All
    processes of a torch.distributed group take part; all must call, and all know the same.

    Attributes:
        sizes: int64 [K].
        starts: int64 [K + 1].
        members: int64 [N], rows of the pool, ascending in each cluster.
        means: float64 [N], mean kernel of each member with its cluster.
        others: float64 [N], sum of the kernel of each member with the others of its cluster.
        order: int64 [N], places of members in order of picking; the first `known` of a cluster.
        known: int64 [K], how many places of `order` are known; -1 where not even `means` are.
    """

    def __init__(
        self,
        rows: Rows,
        labels: Ints,
        num_clusters: int,
        bandwidth: float = 1.0,
        memory: int = MEMORY,
        device: str = "cpu",
        checkpointer: Checkpointer | None = None,
    ) -> None:
        """Knows what the checkpointer has kept; reads no row yet.

        Args:
            rows: of the pool, N.
            labels: the cluster of each row, int [N].
            num_clusters: K.
            bandwidth: σ of the kernel.
            memory: bytes of rows and kernels held at once.
            device: where rows are multiplied.
            checkpointer: keeps what is known now and then, and at the end.
        """
        self.pool, self.bandwidth, self.memory = rows, bandwidth, memory
        self.device, self.checkpointer = torch.device(device), checkpointer
        groups = members(labels, num_clusters)
        self.sizes: Ints = np.array([len(group) for group in groups])
        self.starts: Ints = np.append(0, np.cumsum(self.sizes))
        self.members: Ints = np.concatenate(groups)
        kept = None if checkpointer is None else checkpointer.load(STATE)
        known: Arrays = kept or {
            "means": np.zeros(len(labels)),
            "others": np.zeros(len(labels)),
            "order": np.zeros(len(labels), np.int64),
            "known": np.where(self.sizes > 0, -1, 0),
        }
        self.means, self.others = known["means"], known["others"]
        self.order, self.known = known["order"], known["known"]
        summed(np.zeros(1))  # nobody keeps more before all have read what was kept

    def __len__(self) -> int:
        return len(self.sizes)

    def __iter__(self) -> Iterator[KnownCluster]:
        return (self[cluster] for cluster in range(len(self)))

    def __getitem__(self, cluster: int) -> KnownCluster:
        start, stop = self.starts[cluster], self.starts[cluster + 1]
        known = start + max(0, self.known[cluster])
        return KnownCluster(
            self.members[start:stop],
            self.means[start:stop],
            self.others[start:stop],
            self.order[start:known],
        )

    def learn(self, wanted: Ints | None = None) -> None:
        """Read what is not known yet.

        Clusters whose rows and kernel fit in memory are read some at a time, with their rows
        ascending over all of these, and put in order of picking to the last sample: any budget is
        then a look-up. A larger cluster is put in order as far as is wanted.

        Args:
            wanted: int64 [K], places in the order that must be known (default: none in a cluster
                that does not fit).
        """
        wanted = np.zeros_like(self.sizes) if wanted is None else np.minimum(wanted, self.sizes)
        missing = np.flatnonzero((self.known < wanted) | (self.known < 0))
        if not len(missing):
            return
        ends = np.cumsum(self.sizes[missing])
        share = own_share(int(ends[-1]) + 1)  # clusters that follow each other, of as many rows
        own = missing[(share.start <= ends) & (ends < share.stop)]
        small = [c for c in own if fits(int(self.sizes[c]), self.pool.row_bytes, self.memory)]
        total = float(self.sizes[own].sum())
        with progress(f"{len(own)} clusters", total, self.checkpointer is not None) as advance:
            saved = time.monotonic()
            groups = list(self._groups(small))
            together = (self._rows_of(group) for group in groups)
            for group, block in zip(groups, self.pool.gathers(together), strict=True):
                at = self._rows_of(group)
                for cluster in group:
                    rows = self[cluster].rows
                    self._read(cluster, len(rows), block[np.searchsorted(at, rows)])
                    advance(len(rows))
                if time.monotonic() - saved > KEEP_EVERY:
                    self._keep()
                    saved = time.monotonic()
            for cluster in sorted(set(own.tolist()) - set(small)):
                self._read(cluster, int(wanted[cluster]))
                advance(float(self.sizes[cluster]))
                self._keep()
        self._exchange(missing, own)
        self._keep()

    def _read(self, cluster: int, count: int, loaded: Array | None = None) -> None:
        """Learns one cluster, its order as far as `count`; its rows may be loaded already."""
        known, at = self[cluster], self.starts[cluster]
        rows = self.pool.subset(known.rows)
        kernel = Kernel(rows, self.bandwidth, self.memory, self.device, loaded)
        if self.known[cluster] < 0:
            self.means[at : at + len(known)] = kernel.means
            self.others[at : at + len(known)] = kernel.others
        self.order[at : at + count] = kernel.greedy(count, self.means[at : at + len(known)])
        self.known[cluster] = count

    def _groups(self, clusters: list[int]) -> Iterator[list[int]]:
        """Clusters in order, as many together as half of the memory holds rows of twice."""
        group: list[int] = []
        room = left = max(1, self.memory // 4 // self.pool.row_bytes)
        for cluster in clusters:
            if group and self.sizes[cluster] > left:
                yield group
                group, left = [], room
            group.append(cluster)
            left -= int(self.sizes[cluster])
        if group:
            yield group

    def _rows_of(self, group: list[int]) -> Ints:
        """Rows of several clusters, ascending."""
        return np.sort(np.concatenate([self[cluster].rows for cluster in group]))

    def _exchange(self, missing: Ints, own: Ints) -> None:
        """Gives every process what each has learned."""
        if group_size()[0] == 1:
            return
        every_row, own_rows = (
            np.repeat(np.isin(np.arange(len(self)), c), self.sizes) for c in (missing, own)
        )
        for array, every, mine in (
            (self.means, every_row, own_rows),
            (self.others, every_row, own_rows),
            (self.order, every_row, own_rows),
            (self.known, missing, own),
        ):
            learned = np.zeros_like(array)
            learned[mine] = array[mine]
            array[every] = summed(learned)[every]

    def _keep(self) -> None:
        if self.checkpointer is not None:
            names = ("means", "others", "order", "known")
            self.checkpointer.save(STATE, {name: getattr(self, name) for name in names})
