"""How dense each cluster is (paper, section 3.3)."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from coincide_pl.processes import joined
from coincide_pl.selection.arrays.dtypes import ArrayLike, Floats, like
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.steps.checks import labels_of, positive
from coincide_pl.selection.steps.cluster_order import ClusterOrder
from coincide_pl.selection.steps.kernels import Cluster, Kernel, members

SMALLEST = float(np.finfo(np.float64).tiny)
"""Stands for a density that is smaller than numbers can be: none is 0."""


def density(
    features: ArrayLike | ClusterOrder,
    labels: ArrayLike,
    bandwidth: float = 1.0,
    include_self: bool = True,
    memory: int = MEMORY,
) -> ArrayLike:
    """D_i: the mean Gaussian kernel over all pairs of a cluster.

    k(x, y) = exp(-‖x - y‖² / (2 σ²)), in float64.

    Args:
        features: [N, D], any float dtype, also memory-mapped; or their `ClusterOrder`, which has
            read them, and of which all processes must ask.
        labels: the cluster of each row, int [N], 0 to K - 1.
        bandwidth: σ.
        include_self: whether pairs of a sample with itself count, as in the authors' code; in the
            paper's sum they do not (a cluster of one then has density 1).
        memory: bytes of rows and kernel held at once.

    Returns:
        float64 [K], positive, but 0 for an empty cluster; of the kind of `features`.

    Raises:
        SelectionError: the bandwidth is no positive number, a row is not finite, or labels and
            features do not go together.

    Example:
        >>> import numpy as np
        >>> features = np.array([[1.0, 0.0], [1.0, 0.0], [0.6, 0.8], [0.0, 1.0]])
        >>> density(features, np.array([0, 0, 1, 1])).round(2)
        array([1.  , 0.91])
    """
    positive(bandwidth=bandwidth)
    if isinstance(features, ClusterOrder):
        return joined(_means(features, include_self))
    rows = Rows(features)
    groups = members(labels_of(labels, len(rows)))
    clusters = (Kernel(rows.subset(own), bandwidth, memory) for own in groups)
    return like(_means(clusters, include_self), features)


def _means(clusters: Iterable[Cluster], include_self: bool) -> Floats:
    """D of each, float64."""
    return np.array([_mean(cluster, include_self) for cluster in clusters], np.float64)


def _mean(cluster: Cluster, include_self: bool) -> float:
    """D of one cluster; 0 if it is empty."""
    n = len(cluster)
    if include_self or not n:
        return float(cluster.means.sum() / max(n, 1))
    return max(float(cluster.others.sum() / (n * (n - 1))), SMALLEST) if n > 1 else 1.0
