"""XMAS: as many from each group whose text and image came together alike, the steadiest first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Array, Arrays, Floats, Ints
from coincide_pl.selection.arrays.with_faiss import load_faiss
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.selection.steps.kernels import members
from coincide_pl.signals.spectra import CrossAttention


class Xmas(Selector):
    """Cross-modal alignment trajectories (Naharas et al., arXiv 2510.01454, and the authors' code).

    A proxy is finetuned, and at each of its checkpoints c a sample has the sum t_c of the top
    singular values of its cross-modal attention. Its trajectory (t_1, …, t_C) is clustered by
    k-means, and its instability is Σ |t_{c+1} - t_c|. From the smallest cluster to the largest,
    each gives its most stable samples: as many as its part of what is still to be picked, shared
    evenly over the clusters that remain.

    Samples without an image are a cluster of their own, drawn at random. Clusters of one or two
    samples give none, as in the authors' code, unless all others are used up. Of more than 256
    samples a cluster, Faiss learns the centroids from as many drawn ones, there and here. Equals go
    by row.
    """

    several: ClassVar[tuple[SignalKind, ...]] = (CrossAttention,)

    def __init__(
        self,
        num_clusters: int = 1000,
        top: int = 5,
        smallest: int = 3,
        num_iterations: int = 100,
        seed: int = 1234,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_clusters: number of clusters of trajectories.
            top: number of singular values that are summed, at most as many as the signal holds.
            smallest: number of samples that a cluster must have to give any at first.
            num_iterations: rounds of k-means.
            seed: seed of k-means and of the draw among samples without an image.

        Raises:
            SelectionError: a value that is not positive.
        """
        positive(num_clusters=num_clusters, top=top, num_iterations=num_iterations)
        self.num_clusters = num_clusters
        self.top = top
        self.smallest = smallest
        self.num_iterations = num_iterations
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """Clusters trajectories, and picks the steadiest of each cluster.

        Raises:
            SelectionError: one checkpoint alone, singular values that are missing or not finite, or
                more clusters than samples with an image.
        """
        found = trajectories(pool.several[CrossAttention.name], self.top)  # [N, C]
        shown = found.any(1)
        cache = pool.cache.also({"signals": pool.fingerprints.get("signals"), "top": self.top})
        labels = np.full(len(pool), self.num_clusters, np.int64)  # without an image
        if shown.any():
            labels[shown] = cache.once(
                "trajectories",
                {name: getattr(self, name) for name in ("num_clusters", "num_iterations", "seed")},
                lambda _: self._clusters(found[shown]),
            )["labels"]
        instability = np.abs(np.diff(found, axis=1)).sum(1)
        random = np.random.default_rng(self.seed).permutation(len(pool))
        order = np.where(shown, instability, random)  # of texts, no cluster holds others
        clusters = [
            rows[np.argsort(order[rows], kind="stable")]
            for rows in members(labels, self.num_clusters + 1)
        ]
        shares = walk(np.array([len(rows) for rows in clusters]), count, self.smallest)
        indices = [rows[:share] for rows, share in zip(clusters, shares.tolist(), strict=True)]
        columns = {"size": np.array([len(rows) for rows in clusters]), "selected": shares}
        return Picks(np.concatenate(indices), columns, labels=labels)

    def _clusters(self, found: Floats) -> Arrays:
        """`labels` int64 [n] by k-means of trajectories [n, C]."""
        if len(found) < self.num_clusters:
            raise SelectionError(
                f"num_clusters: can't make {self.num_clusters} clusters of {len(found)} samples "
                "with an image"
            )
        rows = np.ascontiguousarray(found, np.float32)
        kmeans = load_faiss().Kmeans(
            *(rows.shape[1], self.num_clusters),
            niter=self.num_iterations,
            seed=self.seed,
            min_points_per_centroid=1,  # else it warns, where a cluster has fewer than 39
        )
        kmeans.train(rows)
        return {"labels": kmeans.index.search(rows, 1)[1][:, 0]}


def trajectories(checkpoints: Sequence[Array], top: int) -> Floats:
    """The sum of the top singular values of each sample at each checkpoint.

    Args:
        checkpoints: [N, kept] of each, the largest first; zeros without an image.
        top: how many are summed.

    Returns:
        float64 [N, C].

    Raises:
        SelectionError: one checkpoint alone, too few singular values, or some not finite.
    """
    if len(checkpoints) < 2:
        raise SelectionError(
            "Xmas follows cross_attention over checkpoints of a finetuned model, but one store "
            "alone holds it: name several in data.signals, in the order of training"
        )
    for values in checkpoints:
        if values.ndim != 2 or values.shape[1] < top:
            raise SelectionError(f"top: {top} are more than the {values.shape[1:]} that are kept")
    found = np.stack([np.asarray(one[:, :top], np.float64).sum(1) for one in checkpoints], 1)
    if not np.isfinite(found).all():
        bad = int(np.argmin(np.isfinite(found).all(1)))
        raise SelectionError(f"signal 'cross_attention' of record {bad} is NaN or infinite")
    return found


def walk(sizes: Ints, count: int, smallest: int) -> Ints:
    """How many samples each cluster gives, from the smallest cluster to the largest.

    Args:
        sizes: int [K].
        count: samples in all, at most the sum of the sizes.
        smallest: samples that a cluster must have, unless the larger ones are used up.

    Returns:
        int64 [K], of sum `count`.
    """
    shares = np.zeros(len(sizes), np.int64)
    order = np.argsort(sizes, kind="stable")
    for group in (order[sizes[order] >= smallest], order[sizes[order] < smallest]):
        left = count - int(shares.sum())
        for place, cluster in enumerate(group.tolist()):
            shares[cluster] = min(sizes[cluster], left // (len(group) - place))
            left -= int(shares[cluster])
    return shares
