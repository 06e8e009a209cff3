"""VisNec: the samples whose answers need their image, of every kind of instruction."""

from __future__ import annotations

import numpy as np

from coincide_pl.selection.arrays.kmeans import spherical_kmeans
from coincide_pl.selection.arrays.shares import shares, top_of_groups
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.signals.likelihood import NegativeLogLikelihood
from coincide_pl.signals.rewritten import Instruction, NllWithoutImage


class VisNec(Selector):
    """Visual necessity (Dong et al., ECCV 2026, arXiv 2603.01195).

    From the loss of the answer y to the question x with the image I and without it,

        VisNec(I, x, y) = L(y | x) - L(y | x, I)

    which is below 0 where the image misleads. The instructions are clustered, and each cluster
    gives the same share of its samples, those with the highest values. Equal values rank by row.

    The paper leaves the clustering open; the authors' code has 20 clusters by k-means in
    mini-batches over embeddings of the first question (all-MiniLM-L6-v2), and keeps int(p n) of a
    cluster of n, at least one. So it ends a little short: here the largest fractions make up for
    that, and clusters are spherical. It masks the image's tokens, which are left out here. A sample
    without an image has the value 0, as there.
    """

    signals = (NegativeLogLikelihood, NllWithoutImage)
    by_all_processes = True

    def __init__(
        self,
        num_clusters: int = 20,
        features: str = Instruction.name,
        num_iterations: int = 50,
        seed: int = 1234,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_clusters: K, the number of clusters of instructions; 20 in the authors' code.
            features: name of the signal that is clustered: `instruction`, the mean hidden state
                over the first question, or another embedding of what is asked, such as `clip_text`.
            num_iterations: rounds of k-means at most.
            seed: seed of k-means.

        Raises:
            SelectionError: a value that is not positive.
        """
        positive(num_clusters=num_clusters, num_iterations=num_iterations)
        self.num_clusters = num_clusters
        self.features = features
        self.num_iterations = num_iterations
        self.seed = seed

    @property
    def needs(self) -> tuple[SignalKind, ...]:
        """The two losses, and the features."""
        return (*self.signals, self.features)

    def pick(self, pool: Pool, count: int) -> Picks:
        """Clusters the instructions, and takes the top of each."""
        without = np.asarray(pool.signals[NllWithoutImage.name], np.float64)
        necessity = without - np.asarray(pool.signals[NegativeLogLikelihood.name], np.float64)
        clusters = spherical_kmeans(
            pool.rows(self.features, "features"),
            self.num_clusters,
            self.num_iterations,
            self.seed,
            device=pool.device,
        )
        sizes = np.bincount(clusters.labels, minlength=self.num_clusters)
        kept = shares(sizes, sizes, count)
        indices = top_of_groups(necessity, clusters.labels, kept)
        return Picks(indices, {"size": sizes, "selected": kept}, labels=clusters.labels)
