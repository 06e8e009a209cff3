"""Spherical k-means of any size, exactly: rows and clusters are split over the processes.

Which centroid is nearest is decided by inner products that are exact, so the clusters do not depend
on block sizes, threads, processes, or on the device and precision of the fast products that only
narrow the choice:

- features are float16, multiples of 2^-24, so sums of them in float64 are exact in any order;
- centroids are rounded to multiples of 2^-24 (their entries are at most 1), so an inner product
  with a float16 row of norm 1 is exact in float64 too;
- of equally near centroids the first is taken; initial centroids, and the rows trained on where
  there are more than 256 per centroid, are drawn by numpy from the seed.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from coincide_pl import ranks
from coincide_pl.errors import SelectionError
from coincide_pl.processes import joined
from coincide_pl.selection.arrays.assigner import KMeansConfig
from coincide_pl.selection.arrays.diagnostics import Diagnostics, own_diagnostics
from coincide_pl.selection.arrays.dtypes import ArrayLike, Arrays, Floats, Ints
from coincide_pl.selection.arrays.exact import unit_centroids
from coincide_pl.selection.arrays.lloyd import lloyd, sums_by_label
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.arrays.sketch import sketch
from coincide_pl.selection.arrays.two_levels import two_levels
from coincide_pl.selection.cache import Checkpointer

log = logging.getLogger(__name__)

Method = Literal["auto", "exact", "projected", "two_level"]
METHODS: tuple[Method, ...] = ("exact", "projected", "two_level")
"""What `auto` chooses among."""

EXACT, PROJECTED = 1e15, 1e17
"""Products and sums up to which `auto` clusters in full width, and at one level."""


@dataclass(frozen=True)
class Clusters:
    """The clusters that k-means found.

    Attributes:
        centroids: float32 [K, D] of norm 1; of `own_kmeans` [own clusters, D], those that this
            process owns.
        labels: int64 [N], each row's cluster.
        method: how they were found; never `auto`.
        seed: of the draws; another than asked for after a restart.
        diagnostics: figures that tell whether they are any good.
    """

    centroids: Floats
    labels: Ints
    method: Method
    seed: int
    diagnostics: Diagnostics

    @property
    def figures(self) -> dict[str, float | str]:
        """What a selection tells of its clustering, by name."""
        made = {"clustering": self.method, "clustering_seed": self.seed}
        return {**made, **self.diagnostics.figures}

    @property
    def arrays(self) -> Arrays:
        """All of it but the centroids as arrays, as a file holds them; `of` reads them."""
        figures = {**self.figures, "clustering": METHODS.index(self.method)}
        return {"labels": self.labels, **{name: np.array(value) for name, value in figures.items()}}

    @classmethod
    def of(cls, arrays: Arrays, centroids: Floats) -> Clusters:
        """Clusters from their `arrays` and centroids."""
        figures = {name: value.item() for name, value in arrays.items() if name != "labels"}
        method, seed = METHODS[figures.pop("clustering")], figures.pop("clustering_seed")
        return cls(centroids, arrays["labels"], method, seed, Diagnostics(**figures))


def spherical_kmeans(
    features: ArrayLike | Rows,
    num_clusters: int,
    num_iterations: int = 50,
    seed: int = 1234,
    *,
    method: Method = "auto",
    projection: int = 512,
    restarts: int = 0,
    fit_rows: int | None = None,
    memory: int = MEMORY,
    device: str | torch.device = "cpu",
    checkpointer: Checkpointer | None = None,
    option: str = "num_clusters",
) -> Clusters:
    """Cluster rows by cosine; see `own_kmeans`, whose arguments these are.

    All processes of a torch.distributed group take part; all must call, and all get the same, all
    centroids among them.

    Raises:
        SelectionError: as there.
    """
    found = own_kmeans(
        features,
        num_clusters,
        num_iterations,
        seed,
        method=method,
        projection=projection,
        restarts=restarts,
        fit_rows=fit_rows,
        memory=memory,
        device=device,
        checkpointer=checkpointer,
        option=option,
    )
    return replace(found, centroids=joined(found.centroids))


def own_kmeans(
    features: ArrayLike | Rows,
    num_clusters: int,
    num_iterations: int = 50,
    seed: int = 1234,
    *,
    method: Method = "auto",
    projection: int = 512,
    restarts: int = 0,
    fit_rows: int | None = None,
    memory: int = MEMORY,
    device: str | torch.device = "cpu",
    checkpointer: Checkpointer | None = None,
    option: str = "num_clusters",
) -> Clusters:
    """Cluster rows by cosine; each process gets the centroids of its own clusters.

    `exact` compares rows with centroids in full width. `projected` first adds up the columns, each
    with a random sign, in `projection` random groups (a count sketch: Charikar et al., 2002; inner
    products keep their mean, with a standard error of about 1 / sqrt(projection)), clusters the
    narrow rows, and takes the centroids of the clusters in full width. `two_level` clusters the
    narrow rows into sqrt(K) cells, and each cell into its share of the K clusters. `auto` takes the
    first of these whose operations, 2 N K D a round, are within bounds, and says so where it
    costs agreement with `exact`.

    All processes of a torch.distributed group take part, and all must call. Each compares its share
    of the rows, and owns its share of the clusters, whose centroids and sums it holds; others see
    them in blocks as they are sent round. All get the same labels.

    Args:
        features: [N, D], any float dtype, also memory-mapped.
        num_clusters: K.
        num_iterations: rounds of Lloyd's algorithm at most; it ends when no row changes its
            cluster.
        seed: of all draws.
        method: way to cluster, see above.
        projection: columns of the narrow rows.
        restarts: after a collapse, how often to try again with the next seed.
        fit_rows: rows drawn to train on, at least K; all are assigned to the centroids found
            (default: 256 for each cluster, as Faiss has it).
        memory: bytes for blocks of rows and of centroids, and products; the centroids that this
            process owns come on top, and its share of narrow rows.
        device: where products are computed.
        checkpointer: keeps what an interrupted call goes on from.
        option: what sets the number of clusters, as an error message should name it.

    Raises:
        SelectionError: more clusters than samples, features that are not finite, or a collapse:
            most centroids the same.
    """
    rows = Rows.of(features)
    n, width = len(rows), rows.width
    if not 0 < num_clusters <= n:
        raise SelectionError(f"{option}: can't make {num_clusters} clusters of {n} samples")
    if fit_rows is not None and fit_rows < num_clusters:
        raise SelectionError(f"fit_rows: {fit_rows} rows can't give {num_clusters} clusters")
    if method == "auto":
        method = choose_method(n, width, num_clusters, num_iterations, projection)
    for attempt in range(restarts + 1):
        config = KMeansConfig(
            num_iterations, seed + attempt, memory, torch.device(device), checkpointer, fit_rows
        )
        if method == "exact" or width <= projection:
            own, own_labels = lloyd(rows, num_clusters, config)
            labels = joined(own_labels)
        else:
            narrow = sketch(rows, projection, config)
            if method == "two_level":
                own_labels = two_levels(narrow, num_clusters, config)
            else:
                _, own_labels = lloyd(narrow, num_clusters, config)
            del narrow
            labels = joined(own_labels)
            own = unit_centroids(sums_by_label(rows, labels, num_clusters, config))
        sizes = np.bincount(labels, minlength=num_clusters)
        diagnosed = own_diagnostics(sizes, own, memory, device)
        try:
            diagnosed.check(option)
        except SelectionError as error:
            if attempt == restarts:
                raise
            if ranks.speaks():
                log.warning("%s; trying seed %d", error, seed + attempt + 1)
            continue
        break
    return Clusters(own, labels, method, config.seed, diagnosed)


def choose_method(
    n: int, width: int, num_clusters: int, num_iterations: int, projection: int
) -> Method:
    """What `auto` stands for at a size; the size alone decides, so that it is so everywhere."""
    products = 2.0 * n * num_clusters * num_iterations
    if width <= projection or products * width <= EXACT:
        return "exact"
    method: Method = "projected" if products * projection <= PROJECTED else "two_level"
    if ranks.speaks():
        log.warning(
            "clustering: exact would take up to %.1e operations, so rows are compared in %d "
            "dimensions (%s); this gives other clusters than exact, about as another seed does "
            "(README of experiments/benchmarks); on a GPU set data.selector.clustering=exact",
            products * width,
            projection,
            method,
        )
    return method
