"""Spherical k-means with Faiss, from initial centroids of our own, with a look at what came out."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import faiss
import numpy as np

from coincide_pl.errors import SelectionError

log = logging.getLogger(__name__)

POINTS_PER_CENTROID = 256
"""Rows used per centroid to train, as Faiss does by default; all rows are assigned."""
SAME = 1 - 1e-5
"""Centroids of a larger cosine are the same."""
BLOCK = 65536


@dataclass(frozen=True)
class Clusters:
    """Centroids float32 [K, D] of norm 1, and each row's nearest, int64 [N]."""

    centroids: np.ndarray
    labels: np.ndarray


def spherical_kmeans(
    features: np.ndarray, num_clusters: int, num_iterations: int = 50, seed: int = 1234
) -> Clusters:
    """Cluster rows by cosine.

    The initial centroids, and the rows trained on where there are more than 256 per centroid, are
    drawn by numpy from the seed, so they do not change with the version of Faiss.

    Args:
        features: [N, D], any float dtype, also memory-mapped.
        num_clusters: K.
        num_iterations: of Lloyd's algorithm.
        seed: of the draw.

    Raises:
        SelectionError: more clusters than samples, features that are not finite, or a collapse:
            most centroids the same.
    """
    n, width = features.shape
    if not 0 < num_clusters <= n:
        raise SelectionError(f"num_clusters: can't make {num_clusters} clusters of {n} samples")
    for start in range(0, n, BLOCK):
        finite = np.isfinite(features[start : start + BLOCK]).all(1)
        if not finite.all():
            row = start + int(np.flatnonzero(~finite)[0])
            raise SelectionError(f"the features of record {row} hold NaN or infinity")
    random = np.random.default_rng(seed)
    sample = min(n, POINTS_PER_CENTROID * num_clusters)
    chosen = np.sort(random.choice(n, sample, replace=False)) if sample < n else slice(None)
    rows = np.ascontiguousarray(features[chosen], np.float32)
    initial = rows[random.choice(sample, num_clusters, replace=False)]
    kmeans = faiss.Kmeans(
        width,
        num_clusters,
        niter=num_iterations,
        seed=seed,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=sample + 1,
    )
    kmeans.train(rows, init_centroids=initial)
    labels = np.concatenate(
        [
            kmeans.index.search(np.ascontiguousarray(features[i : i + BLOCK], np.float32), 1)[1][
                :, 0
            ]
            for i in range(0, n, BLOCK)
        ]
    )
    centroids = np.asarray(kmeans.centroids)
    check_collapse(centroids)
    return Clusters(centroids, labels)


def check_collapse(centroids: np.ndarray) -> None:
    """Refuse centroids most of which are the same.

    Raises:
        SelectionError: saying how many, and what to try.
    """
    norms = np.linalg.norm(centroids, axis=1, keepdims=True)
    unit = centroids / np.maximum(norms, 1e-12)
    same = 0
    for start in range(0, len(unit), 1024):
        cosines = unit[start : start + 1024] @ unit.T
        here = np.arange(len(cosines))
        cosines[here, here + start] = -1
        same += int((cosines.max(1) > SAME).sum())
    if 2 * same > len(unit):
        raise SelectionError(
            f"clustering collapsed: {same} of {len(unit)} centroids equal another one; check that "
            "the features differ, try fewer clusters (num_clusters) or another seed"
        )
