"""Clusters that have lost all their rows take half of a larger one, as in Faiss."""

from __future__ import annotations

import numpy as np

from coincide_pl.processes import own_share, summed
from coincide_pl.selection.arrays.dtypes import Floats, Ints

AT_ONCE = 1 << 24
"""Numbers of centroids that all processes hold for a moment, 128 MiB."""


def refill(centroids: Floats, sizes: Ints, seed: int, num_rows: int) -> int:
    """Makes two of a large cluster's centroid, one for an empty cluster, until none is empty.

    The larger a cluster, the likelier it is drawn. Its centroid c becomes c (1 + e) and c / (1 + e)
    with e = ±1/1024 in turns along the columns. The draws are those that Faiss makes from the same
    seed, after its own choice of rows to start from.

    Args:
        centroids: float64 [own clusters, D], changed in place.
        sizes: int64 [K], rows of every cluster.
        seed: of the draws.
        num_rows: of which Faiss would have drawn the initial centroids.

    Returns:
        How many clusters were split.
    """
    if sizes.all():
        return 0
    random = np.random.RandomState(seed)
    random.choice(num_rows, size=len(sizes), replace=False)
    pairs = np.array(_halves(sizes.copy(), random)).reshape(-1, 2)  # [splits, (empty, of)]
    own, width = own_share(len(sizes)), centroids.shape[1]
    factor = np.where(np.arange(width) % 2, 1 - 1 / 1024, 1 + 1 / 1024)
    step = max(1, AT_ONCE // (2 * max(1, width)))
    for start in range(0, len(pairs), step):
        some = pairs[start : start + step]
        involved = np.unique(some)
        mine = (own.start <= involved) & (involved < own.stop)
        here = np.zeros((len(involved), width))
        here[mine] = centroids[involved[mine] - own.start]
        here = summed(here)
        for empty, of in np.searchsorted(involved, some).tolist():
            here[empty] = here[of] * factor
            here[of] /= factor
        centroids[involved[mine] - own.start] = here[mine]
    return len(pairs)


def _halves(sizes: Ints, random: np.random.RandomState) -> list[tuple[int, int]]:
    """Each empty cluster, and the one that it takes half of."""
    pairs = []
    empty = np.flatnonzero(sizes == 0)
    while len(empty):
        weights = np.maximum(sizes - 1.0, 0)
        weights /= weights.sum()
        count = min(int((weights > 0).sum()), len(empty))
        drawn = random.choice(len(sizes), size=count, p=weights)
        for to, of in zip(empty[:count].tolist(), drawn.tolist(), strict=True):
            pairs.append((to, of))
            sizes[to] = sizes[of] // 2
            sizes[of] -= sizes[to]
        empty = empty[count:]
    return pairs
