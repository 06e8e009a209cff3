"""How many distinct samples clusters hold, budgets from it, and picks that keep them apart."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from coincide_pl.processes import joined
from coincide_pl.selection.arrays.dtypes import Floats, Ints
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.steps.apportioned import apportioned
from coincide_pl.selection.steps.cluster_order import ClusterOrder
from coincide_pl.selection.steps.kernels import Kernel

STEPS = 25
"""Bandwidths that are tried, each 1 / √2 of the one before: down to 1 / 4096 of the first."""
LOOKED_AT = 1024
"""Rows that tell how long rows are."""


def length(rows: Rows) -> float:
    """The power of two nearest to the median norm of some rows, evenly spaced: 1 for unit rows."""
    some = np.unique(np.linspace(0, len(rows) - 1, LOOKED_AT).astype(np.int64))
    norms = np.linalg.norm(rows.floats(some, normalize=False).astype(np.float64), axis=1)
    norm = float(np.median(norms))
    return 2.0 ** round(math.log2(norm)) if norm > 0 and math.isfinite(norm) else 1.0


class DistinctNumbers(ClusterOrder):
    """Reads each cluster for its effective number of distinct samples at several bandwidths.

    Attributes:
        numbers: float64 [own clusters, STEPS], once `learn` has been called; 0 where it is empty.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """Reads nothing yet; the arguments are those of `ClusterOrder`, without a checkpointer."""
        super().__init__(*args, **options)
        self.numbers: Floats = np.zeros((len(self), STEPS))

    def _read(self, cluster: int, count: int, kernel: Kernel) -> None:
        self.numbers[cluster] = kernel.distinct(STEPS)
        self.known[cluster] = count


class FlattenedOrder(ClusterOrder):
    """Puts samples in an order that keeps near a cluster's distribution without its repetition.

    `means` are those in which many samples alike count as one, so each pick lowers the MMD to the
    flattened distribution most.
    """

    def _read(self, cluster: int, count: int, kernel: Kernel) -> None:
        if self.known[cluster] < 0:
            at = slice(self.starts[cluster], self.starts[cluster + 1])
            self.means[at], self.others[at] = kernel.flattened, kernel.others
            self.known[cluster] = 0
        super()._read(cluster, count, kernel)


def distinct_numbers(
    rows: Rows, labels: Ints, num_clusters: int, bandwidth: float, memory: int, device: str
) -> Floats:
    """V_i(h) = Σ_x 1 / Σ_y k_h(x, y) over the samples x, y of each cluster, by bandwidths.

    All processes must call together.

    Args:
        rows: [N, D].
        labels: the cluster of each row, int [N].
        num_clusters: K.
        bandwidth: the widest h.
        memory: bytes of rows and kernels held at once.
        device: where rows are multiplied.

    Returns:
        float64 [K, STEPS], of h = bandwidth / √2^step.
    """
    clusters = DistinctNumbers(rows, labels, num_clusters, bandwidth, memory, device)
    clusters.learn()
    return joined(clusters.numbers)


def distinct_budgets(numbers: Floats, sizes: Ints, count: int) -> tuple[Ints, Floats, float]:
    """The bandwidth at which all clusters hold `count` distinct samples, and what each gives.

    Between two bandwidths V is taken as linear. Where even the narrowest kernel finds fewer
    distinct samples than are wanted, or the widest more, that kernel's numbers are shared out in
    proportion.

    Args:
        numbers: V, float64 [K, steps], as `distinct_numbers` gives it.
        sizes: samples of each cluster, int [K].
        count: samples wanted, at most all.

    Returns:
        Budgets int64 [K] of sum `count`, none above its cluster's size; V_i at that bandwidth,
        float64 [K]; and how many steps it is below the widest.
    """
    totals = np.maximum.accumulate(numbers.sum(0))
    step = float(np.interp(count, totals, np.arange(len(totals))))
    below = min(int(step), len(totals) - 2)
    found = numbers[:, below] + (step - below) * (numbers[:, below + 1] - numbers[:, below])
    return apportioned(found, sizes, count), found, step
