"""COINCIDE: clusters of activations, budgets by transferability and density, MMD picks."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.selection.budgets import Walk, walk
from coincide_pl.selection.clustering import spherical_kmeans
from coincide_pl.selection.kernels import MEMORY, check_bandwidth, density, greedy_mmd, members
from coincide_pl.selection.selector import Pool, Selector, target_count
from coincide_pl.selection.transferability import Modality, transferability


class Coincide(Selector):
    """Concept-skill transferability-based selection (Lee et al., EMNLP 2024, arXiv 2406.10995).

    Spherical k-means of the reference model's activations gives clusters; cluster i gets a share
    P_i ∝ exp(S_i / (τ D_i)) of the budget by its transferability S_i and density D_i; inside it the
    greedy MMD picks keep its distribution.
    """

    signals: ClassVar[tuple[str, ...]] = ("activations",)

    def __init__(
        self,
        num_clusters: int,
        temperature: float = 0.1,
        bandwidth: float = 1.0,
        modality: Modality = "text",
        exclude_above: float | None = 0.9,
        density_with_self: bool = True,
        num_iterations: int = 50,
        seed: int = 1234,
        memory: int = MEMORY,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_clusters: K; the paper has 10,000 for LLaVA-1.5's 665 K samples and 2,500 for
                Vision-Flan's 186 K.
            temperature: τ.
            bandwidth: σ of the Gaussian kernel.
            modality: halves that transferability compares (`both` in the paper).
            exclude_above: centroids more similar are left out of transferability (null in the
                paper).
            density_with_self: whether density counts each sample's pair with itself.
            num_iterations: of k-means.
            seed: of k-means.
            memory: bytes of kernel held at once.

        Raises:
            SelectionError: a value that makes no sense.
        """
        check_bandwidth(bandwidth)
        for name, value in {
            "num_clusters": num_clusters,
            "num_iterations": num_iterations,
            "temperature": temperature,
        }.items():
            if not value > 0:
                raise SelectionError(f"{name}: {value} must be positive")
        self.num_clusters = num_clusters
        self.temperature = temperature
        self.bandwidth = bandwidth
        self.modality: Modality = modality
        self.exclude_above = exclude_above
        self.density_with_self = density_with_self
        self.num_iterations = num_iterations
        self.seed = seed
        self.memory = memory

    def pick(self, pool: Pool, count: int) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Clusters, scores and picks."""
        features = pool.signals["activations"]
        if pool.num_layers is None:
            raise SelectionError("Coincide needs to know how many layers the activations hold")
        clusters = spherical_kmeans(features, self.num_clusters, self.num_iterations, self.seed)
        scores = np.asarray(
            transferability(clusters.centroids, pool.num_layers, self.modality, self.exclude_above)
        )
        rows, groups = cluster_members(clusters.labels, self.num_clusters)
        densities = np.zeros(self.num_clusters)
        densities[: len(groups)] = np.asarray(
            density(features, clusters.labels, self.bandwidth, self.density_with_self, self.memory)
        )
        plan = walk(scores, densities, rows, count, self.temperature)
        return picks(features, groups, plan, self.bandwidth, self.memory), {
            "size": rows,
            "transferability": scores,
            "density": densities,
            "selected": plan.total,
        }


def pick(
    features: np.ndarray | torch.Tensor,
    labels: np.ndarray | torch.Tensor,
    transferability: np.ndarray | torch.Tensor,
    fraction: float,
    temperature: float = 0.1,
    bandwidth: float = 1.0,
    memory: int = MEMORY,
) -> np.ndarray | torch.Tensor:
    """From cluster labels to picks, as the authors' code does it.

    Args:
        features: [N, D].
        labels: int [N], the row's cluster, 0 to K - 1.
        transferability: S, [K].
        fraction: of the N samples; int(fraction * N) are picked.
        temperature: τ of the budgets.
        bandwidth: σ of the kernel.
        memory: bytes of kernel held at once.

    Returns:
        Rows int64 [count]: cluster by cluster from the largest share to the smallest, in order of
        picking, then the rows that make up for a walk that ended short.

    Raises:
        SelectionError: a parameter out of range, or a label without transferability.
    """
    scores = np.asarray(transferability)
    array = np.asarray(labels)
    if len(array) != len(features) or (
        len(array) and not 0 <= array.min() <= array.max() < len(scores)
    ):
        raise SelectionError(f"labels must be {len(features)} numbers from 0 to {len(scores) - 1}")
    count = target_count(fraction, len(array))
    sizes, groups = cluster_members(array, len(scores))
    densities = np.zeros(len(scores))
    densities[: len(groups)] = np.asarray(density(features, array, bandwidth, memory=memory))
    plan = walk(scores, densities, sizes, count, temperature)
    rows = picks(features, groups, plan, bandwidth, memory)
    return rows if isinstance(features, np.ndarray) else torch.from_numpy(rows)


def cluster_members(labels: np.ndarray, num_clusters: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """Sizes int64 [K], and the rows of each cluster up to the last one that has any."""
    return np.bincount(labels, minlength=num_clusters), members(labels)


def picks(
    features: Any, groups: list[np.ndarray], plan: Walk, bandwidth: float, memory: int
) -> np.ndarray:
    """The rows that a walk's budgets stand for.

    A cluster that the walk takes whole comes in record order, as in the authors' code; the greedy
    picks of any other go on from the walk's to those that make up for its shortfall.
    """
    first, more = [], []
    for cluster in plan.order:
        official, total = int(plan.official[cluster]), int(plan.total[cluster])
        if not total:
            continue
        rows = groups[cluster]
        if plan.whole[cluster]:
            first.append(rows)
            continue
        chosen = rows[np.asarray(greedy_mmd(features[rows], total, bandwidth, memory))]
        first.append(chosen[:official])
        more.append(chosen[official:])
    return np.concatenate(first + more)
