"""Whether a clustering is any good: sizes, and how alike its centroids are."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.processes import by_itself, largest
from coincide_pl.selection.arrays.centroid_pairs import centroid_pairs
from coincide_pl.selection.arrays.dtypes import Floats, Ints
from coincide_pl.selection.arrays.exact import rounded_unit
from coincide_pl.selection.arrays.rows import MEMORY

SAME = 1 - 1e-5
"""Centroids of a larger cosine are the same."""


@dataclass(frozen=True)
class Diagnostics:
    """Figures that tell whether a clustering is any good.

    Attributes:
        clusters: K.
        empty: clusters without a sample.
        smallest: size of the smallest cluster.
        median: size of the median cluster.
        largest: size of the largest cluster.
        imbalance: K Σ n_i² / N², 1 where all are of one size (Faiss's imbalance factor).
        nearest_median: median over centroids of the cosine with the most similar other one.
        nearest_maximum: the largest of these.
        collapsed: share of centroids that equal another one.
    """

    clusters: int
    empty: int
    smallest: int
    median: float
    largest: int
    imbalance: float
    nearest_median: float
    nearest_maximum: float
    collapsed: float

    @property
    def figures(self) -> dict[str, float]:
        """Name and value of each."""
        return asdict(self)

    def check(self, option: str = "num_clusters") -> None:
        """Refuse clusters most of whose centroids are the same.

        Args:
            option: what sets the number of clusters, as the message should name it.

        Raises:
            SelectionError: saying how many, and what to try.
        """
        if self.collapsed > 0.5:
            raise SelectionError(
                f"clustering collapsed: {round(self.collapsed * self.clusters)} of {self.clusters} "
                f"centroids equal another one, {self.empty} clusters are empty, the largest has "
                f"{self.largest} samples; check that the features differ, try fewer clusters "
                f"({option}), or another seed"
            )


def diagnostics(labels: Ints, centroids: Floats) -> Diagnostics:
    """Sizes of the clusters, and how alike their centroids are.

    Args:
        labels: int [N].
        centroids: [K, D].
    """
    with by_itself():
        return own_diagnostics(np.bincount(labels, minlength=len(centroids)), centroids)


def own_diagnostics(
    sizes: Ints, own: Floats, memory: int = MEMORY, device: str | torch.device = "cpu"
) -> Diagnostics:
    """The same for clusters whose centroids are split over the processes.

    Args:
        sizes: int [K], of the clusters of all processes.
        own: float32 [own clusters, D], the centroids that this process owns.
        memory: bytes for blocks and products.
        device: where these are computed.
    """
    nearest = nearest_cosines(own, len(sizes), memory, device)
    total = max(int(sizes.sum()), 1)
    return Diagnostics(
        clusters=len(sizes),
        empty=int((sizes == 0).sum()),
        smallest=int(sizes.min()),
        median=float(np.median(sizes)),
        largest=int(sizes.max()),
        imbalance=float(len(sizes) * (sizes.astype(np.float64) ** 2).sum() / total**2),
        nearest_median=float(np.median(nearest)),
        nearest_maximum=float(nearest.max()),
        collapsed=float((nearest > SAME).mean()),
    )


def nearest_cosines(
    own: Floats, num_clusters: int, memory: int, device: str | torch.device
) -> Floats:
    """Cosine of each centroid with the most similar other one, float64 [K]; -1 for an only one."""
    found = torch.full((num_clusters,), -1.0, dtype=torch.float64, device=device)
    for rows, columns, cosines in centroid_pairs(own, num_clusters, rounded_unit, memory, device):
        if rows == columns:
            cosines.fill_diagonal_(-1)
        found[rows] = found[rows].maximum(cosines.amax(1))
        found[columns] = found[columns].maximum(cosines.amax(0))
    return largest(found.cpu().numpy())
