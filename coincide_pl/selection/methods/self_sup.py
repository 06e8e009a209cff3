"""Self-Sup: far from the prototypes, or near to them."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from coincide_pl.selection.arrays.kmeans import spherical_kmeans
from coincide_pl.selection.arrays.ranking import ranked
from coincide_pl.selection.arrays.rows import centroid_cosines
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.signals.embeddings import MeanToken


class SelfSup(Selector):
    """Self-supervised prototypes (Sorscher et al., NeurIPS 2022, arXiv 2206.14486).

    Spherical k-means of the mean hidden state gives prototypes; a sample is the harder the smaller
    its cosine with its own. By default the hardest are kept. Equal cosines rank by row.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (MeanToken,)
    by_all_processes: ClassVar[bool] = True

    def __init__(
        self,
        num_clusters: int = 1000,
        keep: Literal["hard", "easy"] = "hard",
        num_iterations: int = 50,
        seed: int = 1234,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_clusters: number of prototypes; the paper has as many as ImageNet has classes, and
                finds that the number hardly matters.
            keep: samples that are kept: `hard`, the farthest from their prototype, or `easy`, the
                nearest; the paper's advice for few data is the nearest.
            num_iterations: rounds of k-means at most.
            seed: seed of k-means.

        Raises:
            SelectionError: a value that is not positive.
        """
        positive(num_clusters=num_clusters, num_iterations=num_iterations)
        self.num_clusters = num_clusters
        self.keep = keep
        self.num_iterations = num_iterations
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """The `count` samples that are the farthest from their prototypes, or the nearest."""
        features = pool.rows(MeanToken.name)
        clusters = spherical_kmeans(
            features, self.num_clusters, self.num_iterations, self.seed, device=pool.device
        )
        cosines = centroid_cosines(features, clusters.centroids, clusters.labels)
        indices = ranked(cosines, count, "lowest" if self.keep == "hard" else "highest")
        sizes, kept = (
            np.bincount(labels, minlength=self.num_clusters)
            for labels in (clusters.labels, clusters.labels[indices])
        )
        return Picks(indices, {"size": sizes, "selected": kept}, labels=clusters.labels)
