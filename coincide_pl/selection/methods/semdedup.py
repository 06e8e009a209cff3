"""SemDeDup: drop what is nearly the same as something kept."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from coincide_pl.selection.arrays.dtypes import Floats, Ints
from coincide_pl.selection.arrays.kmeans import spherical_kmeans
from coincide_pl.selection.arrays.ranking import ranked
from coincide_pl.selection.arrays.rows import Rows, centroid_cosines
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.signals.embeddings import LastToken

BLOCK = 2048
"""Rows of a cluster compared at once."""


class SemDeDup(Selector):
    """Semantic deduplication (Abbas et al., 2023, arXiv 2303.09540).

    Spherical k-means of the last real token's hidden state; each cluster's samples are ordered from
    far from the centroid to near, and a sample's redundancy is its largest cosine to one before it.
    The least redundant of all clusters are kept: as many as asked for, so the paper's threshold
    1 - ε is whatever leaves that many, and nobody has to search for it. Equal redundancies rank by
    row.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (LastToken,)
    by_all_processes: ClassVar[bool] = True

    def __init__(
        self, num_clusters: int = 10000, num_iterations: int = 50, seed: int = 1234
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_clusters: K, the number of clusters; by default about 66 samples a cluster for
                LLaVA-1.5's 665 K.
            num_iterations: rounds of k-means at most.
            seed: seed of k-means.

        Raises:
            SelectionError: a value that is not positive.
        """
        positive(num_clusters=num_clusters, num_iterations=num_iterations)
        self.num_clusters = num_clusters
        self.num_iterations = num_iterations
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """Clusters, measures redundancy, and keeps the `count` least redundant."""
        features = pool.rows(LastToken.name)
        clusters = spherical_kmeans(
            features, self.num_clusters, self.num_iterations, self.seed, device=pool.device
        )
        to_centroid = centroid_cosines(features, clusters.centroids, clusters.labels)
        order = np.lexsort((to_centroid, clusters.labels))  # of equals, the lower row first
        sizes = np.bincount(clusters.labels, minlength=self.num_clusters)
        redundancy = np.empty(len(pool), np.float64)
        for members in np.split(order, np.cumsum(sizes)[:-1]):
            redundancy[members] = redundancies(features, members)
        indices = ranked(redundancy, count, "lowest")
        kept = np.bincount(clusters.labels[indices], minlength=self.num_clusters)
        return Picks(indices, {"size": sizes, "selected": kept}, labels=clusters.labels)


def redundancies(features: Rows, members: Ints) -> Floats:
    """Each sample's largest cosine to one before it, in float64: copies nearly so differ late.

    Args:
        features: [N, D].
        members: rows int64 [n] of one cluster, in order.

    Returns:
        float64 [n]; -1 for the first.
    """
    out = np.full(len(members), -1, np.float64)
    for start in range(0, len(members), BLOCK):
        own = features.floats(members[start : start + BLOCK], True, torch.float64)
        here = out[start : start + BLOCK]
        inside = np.where(np.tri(len(own), k=-1, dtype=bool), own @ own.T, -1)
        np.maximum(here, inside.max(1), out=here)
        for before in range(0, start, BLOCK):
            earlier = features.floats(members[before : before + BLOCK], True, torch.float64)
            np.maximum(here, (own @ earlier.T).max(1), out=here)
    return out
