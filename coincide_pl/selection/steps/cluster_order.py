"""What is known of clusters from their rows: kernel means, and the order of picking."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch

from coincide_pl.processes import all_at_the_end, everywhere, group_size, joined, own_share
from coincide_pl.progress import progress
from coincide_pl.selection.arrays.dtypes import Array, Arrays, Floats, Ints
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.arrays.sent_rows import rows_for_all
from coincide_pl.selection.cache import KEEP_EVERY, Checkpointer
from coincide_pl.selection.steps.kernels import Kernel, fits

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

    All processes of a torch.distributed group take part, and all must call. Each has clusters of
    its own, one after the other and with about as many rows as the others', and knows these only.
    Rows stand cluster by cluster: those of the i-th own cluster at `starts[i]` to `starts[i + 1]`.

    Attributes:
        sizes: int64 [K], of all clusters.
        own: the clusters of this process.
        starts: int64 [own clusters + 1].
        members: int64 [M], rows of the pool, ascending in each cluster.
        means: float64 [M], mean kernel of each member with its cluster.
        others: float64 [M], sum of the kernel of each member with the others of its cluster.
        order: int64 [M], places of members in order of picking; the first `known` of a cluster.
        known: int64 [own clusters], how many places of `order` are known; -1 where not even `means`
            are.
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
        self.pool, self.labels, self.bandwidth, self.memory = rows, labels, bandwidth, memory
        self.device, self.checkpointer = torch.device(device), checkpointer
        self.sizes: Ints = np.bincount(labels, minlength=num_clusters)
        ends = np.cumsum(self.sizes)
        share = own_share(len(labels) + 1)
        first, last = np.searchsorted(ends, [share.start, share.stop]).tolist()
        self.own = slice(first, last)
        self.owners = joined(np.full(last - first, group_size()[1]))  # of every cluster
        self.starts: Ints = np.append(0, ends)[first : last + 1] - int(self.sizes[:first].sum())
        mine = np.flatnonzero((first <= labels) & (labels < last))
        self.members: Ints = mine[np.argsort(labels[mine], kind="stable")]
        self.places = slice(int(self.sizes[:first].sum()), int(self.sizes[:last].sum()))
        count = len(self.members)
        kept = None if checkpointer is None else checkpointer.load_share(STATE, self.places)
        state: Arrays = kept or {
            "means": np.zeros(count),
            "others": np.zeros(count),
            "order": np.zeros(count, np.int64),
            "known": np.full(count, -1),
        }
        self.means, self.others, self.order = state["means"], state["others"], state["order"]
        known = np.zeros(last - first, np.int64)
        some = self.sizes[self.own] > 0
        known[some] = state["known"][self.starts[:-1][some]]
        self.known = known
        everywhere(True)  # nobody keeps more before all have read what was kept

    def __len__(self) -> int:
        return len(self.known)

    def __iter__(self) -> Iterator[KnownCluster]:
        """This process's clusters."""
        return (self[cluster] for cluster in range(len(self)))

    def __getitem__(self, cluster: int) -> KnownCluster:
        """One of this process's clusters; the first has number 0, not `own.start`."""
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
        sizes = self.sizes[self.own]
        wanted = np.zeros_like(sizes) if wanted is None else np.minimum(wanted[self.own], sizes)
        missing = (self.known < wanted) | (self.known < 0)
        if everywhere(not missing.any()):
            return
        places = np.flatnonzero(np.repeat(missing, sizes))
        share = own_share(len(self.labels))
        destinations = np.where(joined(missing), self.owners, -1)[self.labels[share]]
        numbers = np.empty(len(self.members), np.int64)
        coming = rows_for_all(self.pool, self.members[places], destinations, self.memory)
        with all_at_the_end(), coming as (source, numbers[places]):
            self._learn(np.flatnonzero(missing), wanted, source, numbers)
            self._keep()

    def _learn(self, missing: Ints, wanted: Ints, source: Rows, numbers: Ints) -> None:
        """Reads clusters; the rows of the members have these numbers in the source."""
        sizes = self.sizes[self.own]
        small = [c for c in missing if fits(int(sizes[c]), self.pool.row_bytes, self.memory)]
        total = float(sizes[missing].sum())
        with progress(f"{len(missing)} clusters", total, self.checkpointer is not None) as advance:
            saved = time.monotonic()
            groups = list(self._groups(small))
            parts = [
                [numbers[self.starts[c] : self.starts[c + 1]] for c in group] for group in groups
            ]
            together = [np.sort(np.concatenate(part)) for part in parts]
            blocks = source.gathers(iter(together))
            for group, part, at, block in zip(groups, parts, together, blocks, strict=True):
                for cluster, rows in zip(group, part, strict=True):
                    kernel = self._kernel(source.subset(rows), block[np.searchsorted(at, rows)])
                    self._read(cluster, len(rows), kernel)
                    advance(len(rows))
                if time.monotonic() - saved > KEEP_EVERY:
                    self._keep()
                    saved = time.monotonic()
            for cluster in sorted(set(missing.tolist()) - set(small)):
                rows = numbers[self.starts[cluster] : self.starts[cluster + 1]]
                self._read(cluster, int(wanted[cluster]), self._kernel(source.subset(rows)))
                advance(float(sizes[cluster]))
                self._keep()

    def _kernel(self, rows: Rows, loaded: Array | None = None) -> Kernel:
        return Kernel(rows, self.bandwidth, self.memory, self.device, loaded)

    def _read(self, cluster: int, count: int, kernel: Kernel) -> None:
        """Learns one cluster, its order as far as `count`."""
        at = slice(self.starts[cluster], self.starts[cluster + 1])
        if self.known[cluster] < 0:
            self.means[at], self.others[at] = kernel.means, kernel.others
        self.order[at.start : at.start + count] = kernel.greedy(count, self.means[at])
        self.known[cluster] = count

    def _groups(self, clusters: list[int]) -> Iterator[list[int]]:
        """Clusters in order, as many together as half of the memory holds rows of twice."""
        group: list[int] = []
        room = left = max(1, self.memory // 4 // self.pool.row_bytes)
        for cluster in clusters:
            size = int(self.starts[cluster + 1] - self.starts[cluster])
            if group and size > left:
                yield group
                group, left = [], room
            group.append(cluster)
            left -= size
        if group:
            yield group

    def _keep(self) -> None:
        if self.checkpointer is not None:
            state = {"means": self.means, "others": self.others, "order": self.order}
            state["known"] = np.repeat(self.known, np.diff(self.starts))
            self.checkpointer.save_share(STATE, self.places, state)
