"""COINCIDE: clusters of activations, budgets by transferability and density, MMD picks."""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.kmeans import Method
from coincide_pl.selection.arrays.rows import MEMORY
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.selection.steps.cluster_order import ClusterOrder
from coincide_pl.selection.steps.kept_clusters import kept_clusters
from coincide_pl.selection.steps.pick import pick_from_clusters, stage
from coincide_pl.selection.steps.transferability import Modality, own_transferability
from coincide_pl.signals.activations import Activations

GIB = 2**30


class Coincide(Selector):
    """Concept-skill transferability-based selection (Lee et al., EMNLP 2024, arXiv 2406.10995).

    Spherical k-means of the reference model's activations gives clusters; cluster i gets a share
    P_i ∝ exp(S_i / (τ D_i)) of the budget by its transferability S_i and density D_i; inside it the
    greedy MMD picks keep its distribution.

    Clusters, transferability, density and the order of picking are kept beside the signals, so
    another fraction or temperature takes seconds.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (Activations,)
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
        fit_rows: int | None = None,
        memory_gib: float = MEMORY / GIB,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_clusters: K, the number of clusters; the paper has 10,000 for LLaVA-1.5's 665 K
                samples and 2,500 for Vision-Flan's 186 K.
            temperature: τ of the budgets, without a unit; the smaller, the fewer clusters get most.
            bandwidth: σ of the Gaussian kernel, in units of the activations, whose rows have norm
                1.
            modality: halves of the activations that transferability compares (`both` in the paper).
            exclude_above: cosine from which on another centroid is left out of transferability
                (null in the paper).
            include_self: whether density counts each sample's pair with itself.
            num_iterations: rounds of k-means at most.
            seed: seed of k-means.
            clustering: way to cluster: `exact` in full width; `projected` in fewer dimensions;
                `two_level` for very many clusters; `auto` chooses by size, and says so where it is
                not exact.
            projection: number of dimensions of the projected rows.
            restarts: number of further tries, each with the next seed, if the clustering collapses.
            fit_rows: number of samples drawn to train k-means on, at least as many as clusters; all
                are assigned to the clusters found (default: 256 for each cluster).
            memory_gib: GiB of memory, in each process, for blocks of rows, of centroids, products
                and kernels; beside these, its share of the centroids takes 20 bytes an entry. It
                does not change the selection.

        Raises:
            SelectionError: a value that makes no sense.
        """
        positive(
            bandwidth=bandwidth,
            num_clusters=num_clusters,
            num_iterations=num_iterations,
            temperature=temperature,
            projection=projection,
            memory_gib=memory_gib,
        )
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
        self.fit_rows = fit_rows
        self.memory_gib = memory_gib

    def pick(self, pool: Pool, count: int) -> Picks:
        """Clusters the activations, scores the clusters, and picks in each as many as it gets.

        Raises:
            SelectionError: the activations do not divide into layers of two halves, or can't be
                clustered.
        """
        activations, memory = pool.rows(Activations.name), int(self.memory_gib * GIB)
        num_layers = pool.num_layers
        if num_layers is None:
            raise SelectionError("Coincide needs to know how many layers the activations hold")
        if activations.width % (2 * num_layers):
            raise SelectionError(
                f"activations of width {activations.width} do not divide into {num_layers} layers "
                "of a visual and a text half"
            )
        made_from = {"signals": pool.fingerprints.get("signals"), "clusters": self._clustering}
        cache = pool.cache.also(made_from)
        with stage("clusters"):
            clusters = kept_clusters(
                activations,
                self.num_clusters,
                cache,
                memory,
                pool.device,
                num_iterations=self.num_iterations,
                seed=self.seed,
                method=self.clustering,
                projection=self.projection,
                restarts=self.restarts,
                fit_rows=self.fit_rows,
            )
        with stage("transferability"):
            scores = cache.once(
                "transferability",
                {"modality": self.modality, "exclude_above": self.exclude_above},
                lambda _: {
                    "scores": own_transferability(
                        clusters.centroids,
                        self.num_clusters,
                        num_layers,
                        self.modality,
                        self.exclude_above,
                        memory,
                        pool.device,
                    )
                },
            )["scores"]
        order = ClusterOrder(
            activations,
            clusters.labels,
            self.num_clusters,
            self.bandwidth,
            memory,
            pool.device,
            cache.also({"bandwidth": self.bandwidth}),
        )
        picks = pick_from_clusters(
            order, clusters.labels, scores, count, self.temperature, self.include_self
        )
        return replace(picks, figures=clusters.figures)

    @property
    def _clustering(self) -> dict[str, object]:
        """The hyperparameters that the clusters depend on."""
        names = ("num_clusters", "num_iterations", "seed", "clustering", "projection", "restarts")
        fit = {} if self.fit_rows is None else {"fit_rows": self.fit_rows}
        return {name: getattr(self, name) for name in names} | fit
