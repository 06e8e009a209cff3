"""Hierarchical k-means: clusters of clusters, and as many samples from each, from the top down."""

from __future__ import annotations

from functools import partial
from typing import ClassVar, Literal

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.processes import joined, own_share
from coincide_pl.selection.arrays.assigner import KMeansConfig
from coincide_pl.selection.arrays.dtypes import Arrays, Floats, Ints
from coincide_pl.selection.arrays.kmeans import Clusters, spherical_kmeans
from coincide_pl.selection.arrays.lloyd import nearest_centroids
from coincide_pl.selection.arrays.rows import MEMORY, Rows, centroid_cosines
from coincide_pl.selection.cache import Checkpointer
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.selection.steps.even import even_shares
from coincide_pl.selection.steps.kernels import members

GIB = 2**30


class HierarchicalKMeans(Selector):
    """Balanced data by k-means of k-means (Vo et al., TMLR 2024, arXiv 2405.15613).

    The first level clusters the samples, each further one the centroids of the level before, so
    that the last level's clusters lie evenly over what the data are about. A level may be
    resampled: only the samples nearest to each centroid are clustered again, and all are assigned
    to the new centroids. Then the count is shared out evenly over the clusters of the last level,
    each share evenly over the clusters below, and in the first level samples are drawn; a cluster
    that is smaller than its share is taken whole.

    Clusters are spherical here, compared by cosine; the authors compare Euclidean distances. For
    the first level of large data they cluster once more inside clusters; here `spherical_kmeans`
    chooses how to cluster by size. They are kept beside the signals, so another fraction takes
    seconds.
    """

    without_effect: ClassVar[tuple[str, ...]] = ("memory_gib",)
    by_all_processes: ClassVar[bool] = True

    def __init__(
        self,
        num_clusters: list[int],
        signal: str = "activations",
        resamplings: list[int] | None = None,
        sampling: Literal["random", "nearest"] = "random",
        num_iterations: int = 50,
        seed: int = 1234,
        memory_gib: float = MEMORY / GIB,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_clusters: number of clusters of each level, from the first to the last, each smaller
                than the one before; the paper has from 10 million down to 10,000 in four levels for
                743 million images.
            signal: name of the signal whose rows are clustered.
            resamplings: number of resamplings of each level (default: none in the first, 10 in each
                other, as the authors have it for large data). Each takes half the average cluster's
                size from each cluster, and none is done where that is less than two.
            sampling: samples of a cluster that are picked: `random` ones, or the `nearest` to its
                centroid.
            num_iterations: rounds of k-means at most.
            seed: seed of k-means and of all draws.
            memory_gib: GiB of memory for blocks of rows and products. It does not change the
                selection.

        Raises:
            SelectionError: a value that makes no sense.
        """
        if (
            not num_clusters
            or num_clusters[-1] < 1
            or sorted(set(num_clusters))[::-1] != list(num_clusters)
        ):
            raise SelectionError(
                f"num_clusters: {num_clusters} must be positive, and each smaller than the one "
                "before, such as [10000, 1000, 100]"
            )
        if resamplings is None:
            resamplings = [0] + [10] * (len(num_clusters) - 1)
        if len(resamplings) != len(num_clusters) or min(resamplings) < 0:
            raise SelectionError(
                f"resamplings: {resamplings} must be a number, 0 or more, for each of the "
                f"{len(num_clusters)} levels"
            )
        positive(num_iterations=num_iterations, memory_gib=memory_gib)
        self.num_clusters = list(num_clusters)
        self.signal = signal
        self.resamplings = list(resamplings)
        self.sampling: Literal["random", "nearest"] = sampling
        self.num_iterations = num_iterations
        self.seed = seed
        self.memory_gib = memory_gib

    @property
    def needs(self) -> tuple[SignalKind, ...]:
        """The signal that is clustered."""
        return (self.signal,)

    def pick(self, pool: Pool, count: int) -> Picks:
        """Clusters level by level, and shares the count out from the last level down."""
        rows = pool.rows(self.signal, "signal")
        made_from = {"num_iterations": self.num_iterations, "seed": self.seed}
        cache = pool.cache.also({"signals": pool.fingerprints.get("signals"), **made_from})
        levels: list[Arrays] = []
        data = rows
        for level, (clusters, times) in enumerate(
            zip(self.num_clusters, self.resamplings, strict=True)
        ):
            before = {"signal": self.signal, "resamplings": self.resamplings[: level + 1]}
            levels.append(
                cache.once(
                    "level",
                    {**before, "num_clusters": self.num_clusters[: level + 1]},
                    partial(self._level, data, clusters, times, pool.device),
                )
            )
            data = Rows(levels[-1]["centroids"])
        labels = levels[0]["labels"]
        cosines = None
        if self.sampling == "nearest":
            cosines = centroid_cosines(rows, levels[0]["centroids"], labels)
        children = [
            members(level["labels"], clusters)
            for level, clusters in zip(levels, self.num_clusters, strict=True)
        ]
        random = np.random.default_rng(self.seed)
        shares = cluster_shares(children, count, random)
        indices = drawn(children[0], shares, random, cosines)
        columns = {"size": np.array([len(some) for some in children[0]]), "selected": shares}
        return Picks(indices, columns, labels=labels)

    def _level(
        self, rows: Rows, clusters: int, times: int, device: str, checkpointer: Checkpointer
    ) -> Arrays:
        """`centroids` float32 [clusters, D] of norm 1, and `labels` int64 [n], of one level."""
        memory = int(self.memory_gib * GIB)
        config = KMeansConfig(self.num_iterations, self.seed, memory, torch.device(device))

        def cluster(some: Rows, seed: int) -> Clusters:
            return spherical_kmeans(
                some,
                clusters,
                self.num_iterations,
                seed,
                memory=memory,
                device=device,
                checkpointer=checkpointer,
            )

        first = cluster(rows, self.seed)
        centroids, labels = first.centroids, first.labels
        size = len(rows) // clusters // 2
        for time in range(times if size > 1 else 0):
            near = nearest(centroid_cosines(rows, centroids, labels), labels, size)
            centroids = cluster(rows.subset(near), self.seed + 1 + time).centroids
            own = centroids[own_share(clusters)]
            labels = joined(nearest_centroids(rows, own, clusters, config))
        return {"centroids": centroids, "labels": labels}


def nearest(cosines: Floats, labels: Ints, size: int) -> Ints:
    """The rows of each cluster with the largest cosines, at most `size` of each: ascending."""
    order = np.lexsort((-cosines, labels))  # of equals, the lower row first
    begins = np.searchsorted(labels[order], labels[order])
    return np.sort(order[np.arange(len(order)) - begins < size])


def cluster_shares(children: list[list[Ints]], count: int, random: np.random.Generator) -> Ints:
    """How many samples each cluster of the first level gives.

    Args:
        children: of each level, the members of its clusters: samples in the first, clusters of the
            level before in the others.
        count: samples in all.
        random: draws what does not divide.

    Returns:
        int64 [K] of the first level, of sum `count`.
    """
    sizes = [np.array([len(some) for some in children[0]])]  # samples below each cluster
    for level in children[1:]:
        sizes.append(np.array([sizes[-1][some].sum() for some in level]))
    shares = even_shares(sizes[-1], count, random)
    for level, below in zip(children[:0:-1], sizes[-2::-1], strict=True):
        above, shares = shares, np.zeros(len(below), np.int64)
        for some, share in zip(level, above.tolist(), strict=True):
            shares[some] = even_shares(below[some], share, random)
    return shares


def drawn(
    clusters: list[Ints], shares: Ints, random: np.random.Generator, cosines: Floats | None
) -> Ints:
    """Samples of each cluster, as many as its share: random ones, or those of largest cosine."""
    picked = []
    for some, share in zip(clusters, shares.tolist(), strict=True):
        if cosines is None:
            picked.append(random.permutation(some)[:share])
        else:
            picked.append(some[np.argsort(-cosines[some], kind="stable")[:share]])
    return np.concatenate(picked)
