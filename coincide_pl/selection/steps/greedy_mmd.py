"""Picks inside a cluster that keep its distribution (paper, section 3.4)."""

from __future__ import annotations

from coincide_pl.selection.arrays.dtypes import ArrayLike, like
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.steps.checks import count_of, positive
from coincide_pl.selection.steps.cluster_order import KnownCluster
from coincide_pl.selection.steps.kernels import Kernel


def greedy_mmd(
    features: ArrayLike | KnownCluster, count: int, bandwidth: float = 1.0, memory: int = MEMORY
) -> ArrayLike:
    """Greedily pick the samples whose kernel mean stays nearest to the cluster's.

    Each step adds the sample that makes MMD² = mean k(C, C) + mean k(P, P) - 2 mean k(C, P) of the
    picks P smallest; of equals the first.

    Args:
        features: [n, D], one cluster; or the `KnownCluster` of a `ClusterOrder` that has read it.
        count: how many, at most n. Fewer are the first of more.
        bandwidth: σ.
        memory: bytes of rows and kernel held at once.

    Returns:
        int64 [count] in order of picking, of the kind of `features`.

    Raises:
        SelectionError: more are asked for than there are, or a row is not finite.

    Example:
        >>> import numpy as np
        >>> greedy_mmd(np.array([[0.0], [0.1], [0.2], [5.0], [5.1], [5.2]]), 2)
        array([1, 4])
    """
    positive(bandwidth=bandwidth)
    if isinstance(features, KnownCluster):
        return features.greedy(count)
    rows = Rows(features)
    kernel = Kernel(rows, bandwidth, memory)
    return like(kernel.greedy(count_of(count, len(rows))), features)
