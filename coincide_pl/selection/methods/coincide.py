"""COINCIDE: clusters of activations, budgets by transferability and density, MMD picks."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.processes import group_size
from coincide_pl.selection.arrays.diagnostics import Health
from coincide_pl.selection.arrays.kmeans import Clusters, Method, spherical_kmeans
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.cache import Cache
from coincide_pl.selection.selector import Picks, Pool, Selector, target_count
from coincide_pl.selection.steps.budgets import Walk, walk
from coincide_pl.selection.steps.cluster_order import Reading, Within, read_clusters
from coincide_pl.selection.steps.kernels import MEMORY, check_bandwidth
from coincide_pl.selection.steps.transferability import Modality, transferability

log = logging.getLogger(__name__)


class Coincide(Selector):
    """Concept-skill transferability-based selection (Lee et al., EMNLP 2024, arXiv 2406.10995).

    Spherical k-means of the reference model's activations gives clusters; cluster i gets a share
    P_i ∝ exp(S_i / (τ D_i)) of the budget by its transferability S_i and density D_i; inside it the
    greedy MMD picks keep its distribution.

    Clusters, transferability, density and the order of picking are kept beside the signals, so
    another fraction or temperature takes seconds.
    """

    signals: ClassVar[tuple[str, ...]] = ("activations",)
    without_effect: ClassVar[tuple[str, ...]] = ("memory_gib",)
    by_all_processes: ClassVar[bool] = True

    def __init__(
        self,
        num_clusters: int,
        temperature: float = 0.1,
        bandwidth: float = 1.0,
        modality: Modality = "text",
        exclude_above: float | None = 0.9,
        include_self: bool = True,
        num_iterations: int = 50,
        seed: int = 1234,
        clustering: Method = "auto",
        projection: int = 512,
        restarts: int = 0,
        memory_gib: float = 2.0,
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
            include_self: whether density counts each sample's pair with itself.
            num_iterations: of k-means at most.
            seed: of k-means.
            clustering: `exact` in full width; `projected` in fewer dimensions; `two_level` for very
                many clusters; `auto` chooses by size, and says so where it is not exact.
            projection: dimensions of the projected rows.
            restarts: if the clustering collapses, how often to try again with the next seed.
            memory_gib: GiB for blocks of rows, products and kernels; beside these, the centroids
                take 20 bytes an entry. It does not change the selection.

        Raises:
            SelectionError: a value that makes no sense.
        """
        check_bandwidth(bandwidth)
        for name, value in {
            "num_clusters": num_clusters,
            "num_iterations": num_iterations,
            "temperature": temperature,
            "projection": projection,
            "memory_gib": memory_gib,
        }.items():
            if not value > 0:
                raise SelectionError(f"{name}: {value} must be positive")
        if restarts < 0:
            raise SelectionError(f"restarts: {restarts} must not be negative")
        self.num_clusters = num_clusters
        self.temperature = temperature
        self.bandwidth = bandwidth
        self.modality: Modality = modality
        self.exclude_above = exclude_above
        self.include_self = include_self
        self.num_iterations = num_iterations
        self.seed = seed
        self.clustering: Method = clustering
        self.projection = projection
        self.restarts = restarts
        self.memory_gib = memory_gib

    def pick(self, pool: Pool, count: int) -> Picks:
        """Clusters, scores and picks."""
        features = pool.signals["activations"]
        if pool.num_layers is None:
            raise SelectionError("Coincide needs to know how many layers the activations hold")
        if features.shape[1] % (2 * pool.num_layers):
            raise SelectionError(
                f"activations of width {features.shape[1]} do not divide into {pool.num_layers} "
                "layers of a visual and a text half"
            )
        kept = pool.cache.also(
            signals=pool.fingerprints.get("signals"),
            num_clusters=self.num_clusters,
            num_iterations=self.num_iterations,
            seed=self.seed,
            clustering=self.clustering,
            projection=self.projection,
            restarts=self.restarts,
        )
        kept.writes &= group_size()[1] == 0
        with stage("clusters"):
            clusters = self._clusters(pool, features, kept)
        with stage("transferability"):
            scores = self._transferability(clusters, pool.num_layers, kept)
        within = Within.unknown(clusters.labels, self.num_clusters)
        reading = Reading(
            Rows(features), self.bandwidth, int(self.memory_gib * 2**30), torch.device(pool.device)
        )
        kept = kept.also(bandwidth=self.bandwidth)
        known = kept.load("within")
        if known is not None:
            within.means, within.order, within.known = (
                known[name] for name in ("means", "order", "known")
            )
        with stage("density and order of picking"):
            read_clusters(within, reading, None, kept)
        densities = within.densities(self.include_self)
        plan = walk(scores, densities, within.sizes, count, self.temperature)
        with stage("picks"):
            read_clusters(within, reading, np.where(plan.whole, 0, plan.total), kept)
        columns = {
            "size": within.sizes,
            "transferability": scores,
            "density": densities,
            "selected": plan.total,
        }
        figures = {
            "clustering": clusters.method,
            "clustering_seed": clusters.seed,
            **clusters.health.figures,
        }
        return Picks(picks(within, plan), columns, figures, clusters.labels)

    def _clusters(self, pool: Pool, features: np.ndarray, kept: Cache) -> Clusters:
        found = kept.load("clusters")
        if found is not None:
            head = kept.load("health")
            if head is not None:
                figures = {name: value.item() for name, value in head.items()}
                method, seed = str(METHODS[figures.pop("method")]), figures.pop("seed")
                return Clusters(
                    found["centroids"],
                    found["labels"],
                    method,  # type: ignore[arg-type]
                    seed,
                    Health(**figures),
                )
        clusters = spherical_kmeans(
            features,
            self.num_clusters,
            self.num_iterations,
            self.seed,
            method=self.clustering,
            projection=self.projection,
            restarts=self.restarts,
            memory=int(self.memory_gib * 2**30),
            device=pool.device,
            keeper=kept,
        )
        kept.save("clusters", {"centroids": clusters.centroids, "labels": clusters.labels})
        figures = {
            "method": METHODS.index(clusters.method),
            "seed": clusters.seed,
            **clusters.health.figures,
        }
        kept.save("health", {name: np.array(value) for name, value in figures.items()})
        return clusters

    def _transferability(self, clusters: Clusters, num_layers: int, kept: Cache) -> np.ndarray:
        kept = kept.also(modality=self.modality, exclude_above=self.exclude_above)
        found = kept.load("transferability")
        if found is not None:
            return found["scores"]
        centroids = clusters.centroids
        scores = np.asarray(
            transferability(centroids, num_layers, self.modality, self.exclude_above)
        )
        kept.save("transferability", {"scores": scores})
        return scores


@contextmanager
def stage(name: str) -> Iterator[None]:
    """Tell how long a stage took."""
    begin = time.perf_counter()
    yield
    log.info("%s: %.1f s", name, time.perf_counter() - begin)


METHODS: tuple[Method, ...] = ("exact", "projected", "two_level")


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
        memory: bytes of rows and kernel held at once.

    Returns:
        Rows int64 [count]: cluster by cluster from the largest share to the smallest, in order of
        picking, then the rows that make up for a walk that ended short.

    Raises:
        SelectionError: a parameter out of range, or a label without transferability.
    """
    check_bandwidth(bandwidth)
    scores = np.asarray(transferability)
    array = np.asarray(labels)
    if len(array) != len(features) or (
        len(array) and not 0 <= array.min() <= array.max() < len(scores)
    ):
        raise SelectionError(f"labels must be {len(features)} numbers from 0 to {len(scores) - 1}")
    count = target_count(fraction, len(array))
    within = Within.unknown(array, len(scores))
    reading = Reading(Rows(features), bandwidth, memory, torch.device("cpu"))
    read_clusters(within, reading)
    plan = walk(scores, within.densities(True), within.sizes, count, temperature)
    read_clusters(within, reading, np.where(plan.whole, 0, plan.total))
    rows = picks(within, plan)
    return rows if isinstance(features, np.ndarray) else torch.from_numpy(rows)


def picks(within: Within, plan: Walk) -> np.ndarray:
    """The rows that a walk's budgets stand for.

    A cluster that the walk takes whole comes in record order, as in the authors' code; the greedy
    picks of any other go on from the walk's to those that make up for its shortfall.
    """
    first, more = [], []
    for cluster in plan.order:
        official, total = int(plan.official[cluster]), int(plan.total[cluster])
        if plan.whole[cluster]:
            first.append(within.rows(cluster))
        elif total:
            chosen = within.picked(cluster, total)
            first.append(chosen[:official])
            more.append(chosen[official:])
    return np.concatenate(first + more)
