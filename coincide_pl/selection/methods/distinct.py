"""Distinct samples: budgets and picks by what a choice of this size can tell apart."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.processes import joined
from coincide_pl.selection.arrays.kmeans import Method
from coincide_pl.selection.arrays.rows import MEMORY
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.selection.steps.distinct import (
    FlattenedOrder,
    distinct_budgets,
    distinct_numbers,
    length,
)
from coincide_pl.selection.steps.kept_clusters import kept_clusters
from coincide_pl.selection.steps.pick import stage

GIB = 2**30
CLUSTER_SIZE = 66
"""Samples of a cluster on average, as in COINCIDE's 10,000 clusters of 665 K."""


class Distinct(Selector):
    """COINCIDE's clusters and greedy MMD picks, with budgets that need no temperature.

    In cluster C a sample x has Σ_{y in C} k_h(x, y) samples like it, itself counted, by the
    Gaussian kernel of bandwidth h. Where each of them counts for its part of one, the cluster holds
    V_C(h) = Σ_{x in C} 1 / Σ_{y in C} k_h(x, y) distinct samples: all that it has if none is like
    another, one if all are the same.

    The budget of a cluster is V_C(h), with the h at which these add up to the count: as fine a
    resolution as a choice of this size can cover. The picks in a cluster are COINCIDE's, greedy by
    the MMD at that h, but toward the distribution in which each sample weighs 1 / Σ_y k_h(x, y);
    so the next pick is where the pool is, and the picks so far are not. Data without repetition,
    whose samples are equally far apart everywhere, thereby give the same share of every cluster;
    repeated samples count once; and a rare kind of sample weighs by how many different ones there
    are, not by how seldom it is.

    It assumes that a distance in the signal means the same everywhere. Neither a scale nor the
    range of a score enters: rows that are twice as long give the same choice. Clusters and their V
    are kept beside the signals, so that for another fraction only the picks are made anew.
    """

    without_effect: ClassVar[tuple[str, ...]] = ("memory_gib",)
    by_all_processes: ClassVar[bool] = True

    def __init__(
        self,
        signal: str = "activations",
        num_clusters: int | None = None,
        num_iterations: int = 50,
        seed: int = 1234,
        clustering: Method = "auto",
        projection: int = 512,
        restarts: int = 0,
        fit_rows: int | None = None,
        memory_gib: float = MEMORY / GIB,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            signal: name of the signal whose rows are clustered and compared.
            num_clusters: K, the number of clusters, inside which samples are compared (default: one
                for every 66 samples, as the paper of COINCIDE has it for LLaVA-1.5).
            num_iterations: rounds of k-means at most.
            seed: seed of k-means.
            clustering: way to cluster: `exact` in full width; `projected` in fewer dimensions;
                `two_level` for very many clusters; `auto` chooses by size, and says so where it is
                not exact.
            projection: number of dimensions of the projected rows.
            restarts: number of further tries, each with the next seed, if the clustering collapses.
            fit_rows: number of samples drawn to train k-means on, at least as many as clusters; all
                are assigned to the clusters found (default: 256 for each cluster).
            memory_gib: GiB of memory, in each process, for blocks of rows, of centroids, products
                and kernels. It does not change the selection.

        Raises:
            SelectionError: a value that makes no sense.
        """
        positive(
            num_clusters=1 if num_clusters is None else num_clusters,
            num_iterations=num_iterations,
            projection=projection,
            memory_gib=memory_gib,
        )
        if restarts < 0:
            raise SelectionError(f"restarts: {restarts} must not be negative")
        self.signal = signal
        self.num_clusters = num_clusters
        self.num_iterations = num_iterations
        self.seed = seed
        self.clustering: Method = clustering
        self.projection = projection
        self.restarts = restarts
        self.fit_rows = fit_rows
        self.memory_gib = memory_gib

    @property
    def needs(self) -> tuple[SignalKind, ...]:
        """The signal that is clustered."""
        return (self.signal,)

    def pick(self, pool: Pool, count: int) -> Picks:
        """Clusters the rows, counts what is distinct in each, and picks as many.

        Raises:
            SelectionError: the rows can't be clustered.
        """
        rows, memory = pool.rows(self.signal, "signal"), int(self.memory_gib * GIB)
        k = self.num_clusters or max(1, len(rows) // CLUSTER_SIZE)
        options = {
            "num_iterations": self.num_iterations,
            "seed": self.seed,
            "projection": self.projection,
            "restarts": self.restarts,
            "fit_rows": self.fit_rows,
        }
        made_from = {"signals": pool.fingerprints.get("signals"), "signal": self.signal}
        cache = pool.cache.also(made_from | options | {"k": k, "clustering": self.clustering})
        with stage("clusters"):
            clusters = kept_clusters(
                rows, k, cache, memory, pool.device, method=self.clustering, **options
            )
        labels, widest = clusters.labels, length(rows)
        with stage("distinct samples"):
            numbers = cache.once(
                "distinct",
                {},
                lambda _: {
                    "numbers": distinct_numbers(rows, labels, k, widest, memory, pool.device)
                },
            )["numbers"]
        sizes = np.bincount(labels, minlength=k)
        shares, found, step = distinct_budgets(numbers, sizes, count)
        h = widest / 2 ** (step / 2)
        order = FlattenedOrder(
            rows, labels, k, h, memory, pool.device, cache.also({"bandwidth": h})
        )
        with stage("picks"):
            order.learn(shares)
        chosen = [
            cluster.rows[cluster.greedy(share)]
            for cluster, share in zip(order, shares[order.own].tolist(), strict=True)
        ]
        picked = joined(np.concatenate([*chosen, np.zeros(0, np.int64)]))
        columns = {"size": sizes, "distinct": found, "selected": shares}
        return Picks(picked, columns, {**clusters.figures, "bandwidth": h}, labels)
