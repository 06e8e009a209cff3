"""Spherical k-means of any size: Faiss's Lloyd loop over an assigner that streams, exactly.

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

import contextlib
import io
import logging
import math
import time
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.processes import own_share, summed
from coincide_pl.progress import progress
from coincide_pl.selection.arrays.assigner import Assigner, KMeansConfig, shift
from coincide_pl.selection.arrays.diagnostics import Diagnostics, diagnostics
from coincide_pl.selection.arrays.dtypes import ArrayLike, Arrays, Floats, Ints
from coincide_pl.selection.arrays.exact import unit_centroids
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.arrays.sketch import sketch
from coincide_pl.selection.arrays.with_faiss import load_faiss
from coincide_pl.selection.cache import KEEP_EVERY, Checkpointer

log = logging.getLogger(__name__)

Method = Literal["auto", "exact", "projected", "two_level"]
METHODS: tuple[Method, ...] = ("exact", "projected", "two_level")
"""What `auto` chooses among."""

POINTS_PER_CENTROID = 256
"""Rows used per centroid to train, as Faiss does by default; all rows are assigned."""
EXACT, PROJECTED = 1e15, 1e17
"""Products and sums up to which `auto` clusters in full width, and at one level."""


@dataclass(frozen=True)
class Clusters:
    """The clusters that k-means found.

    Attributes:
        centroids: float32 [K, D] of norm 1.
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
        """All of it as arrays, as a file holds them; `of` reads them."""
        figures = {**self.figures, "clustering": METHODS.index(self.method)}
        named = {name: np.array(value) for name, value in figures.items()}
        return {"centroids": self.centroids, "labels": self.labels, **named}

    @classmethod
    def of(cls, arrays: Arrays) -> Clusters:
        """Clusters from their `arrays`."""
        figures = {
            name: value.item()
            for name, value in arrays.items()
            if name not in ("centroids", "labels")
        }
        method, seed = METHODS[figures.pop("clustering")], figures.pop("clustering_seed")
        diagnosed = Diagnostics(**figures)
        return cls(arrays["centroids"], arrays["labels"], method, seed, diagnosed)


def spherical_kmeans(
    features: ArrayLike | Rows,
    num_clusters: int,
    num_iterations: int = 50,
    seed: int = 1234,
    *,
    method: Method = "auto",
    projection: int = 512,
    restarts: int = 0,
    memory: int = MEMORY,
    device: str | torch.device = "cpu",
    checkpointer: Checkpointer | None = None,
    option: str = "num_clusters",
) -> Clusters:
    """Cluster rows by cosine.

    `exact` compares rows with centroids in full width. `projected` first adds up the columns, each
    with a random sign, in `projection` random groups (a count sketch: Charikar et al., 2002; inner
    products keep their mean, with a standard error of about 1 / sqrt(projection)), clusters the
    narrow rows, and takes the centroids of the clusters in full width. `two_level` clusters the
    narrow rows into sqrt(K) cells, and each cell into its share of the K clusters. `auto` takes the
    first of these whose operations, 2 N K D a round, are within bounds, and says so where it
    costs agreement with `exact`.

    All processes of a torch.distributed group take part, each with its share of the rows; all must
    call, and all get the same.

    Args:
        features: [N, D], any float dtype, also memory-mapped.
        num_clusters: K.
        num_iterations: rounds of Lloyd's algorithm at most; it ends when no row changes its
            cluster.
        seed: of all draws.
        method: way to cluster, see above.
        projection: columns of the narrow rows.
        restarts: after a collapse, how often to try again with the next seed.
        memory: bytes for blocks of rows and products; centroids come on top.
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
    if method == "auto":
        method = choose_method(n, width, num_clusters, num_iterations, projection)
    for attempt in range(restarts + 1):
        config = KMeansConfig(
            num_iterations, seed + attempt, memory, torch.device(device), checkpointer
        )
        if method == "exact" or width <= projection:
            centroids, labels = lloyd(rows, num_clusters, config)
        else:
            narrow = Rows(sketch(rows, projection, config))
            in_levels = two_levels if method == "two_level" else lloyd
            _, labels = in_levels(narrow, num_clusters, config)
            centroids = unit_centroids(sums_by_label(rows, labels, num_clusters, config))
        diagnosed = diagnostics(labels, centroids)
        try:
            diagnosed.check(option)
        except SelectionError as error:
            if attempt == restarts:
                raise
            log.warning("%s; trying seed %d", error, seed + attempt + 1)
            continue
        break
    return Clusters(centroids, labels, method, config.seed, diagnosed)


def choose_method(
    n: int, width: int, num_clusters: int, num_iterations: int, projection: int
) -> Method:
    """What `auto` stands for at a size; the size alone decides, so that it is so everywhere."""
    products = 2.0 * n * num_clusters * num_iterations
    if width <= projection or products * width <= EXACT:
        return "exact"
    method: Method = "projected" if products * projection <= PROJECTED else "two_level"
    log.warning(
        "clustering: exact would take up to %.1e operations, so rows are compared in %d dimensions "
        "(%s); this gives other clusters than exact, about as another seed does (README of "
        "experiments/benchmarks); on a GPU set data.selector.clustering=exact",
        products * width,
        projection,
        method,
    )
    return method


def lloyd(rows: Rows, num_clusters: int, config: KMeansConfig) -> tuple[Floats, Ints]:
    """Lloyd's algorithm by Faiss, one iteration a call, from initial centroids of our own.

    So a killed run goes on from its last centroids, and ends when nothing changes. Faiss also
    splits large clusters where some are empty.

    Returns:
        Centroids float32 [K, d] of norm 1, and labels int64 [n].
    """
    random = np.random.default_rng(config.seed)
    sample = min(len(rows), POINTS_PER_CENTROID * num_clusters)
    train = rows
    if sample < len(rows):
        train = rows.subset(np.sort(random.choice(len(rows), sample, replace=False)))
    assigner = Assigner(train, num_clusters, config)
    state = f"kmeans-{config.seed}"
    kept = config.checkpointer.load(state) if config.checkpointer is not None else None
    if kept is not None:
        begin, centroids = int(kept["iteration"][0]), kept["centroids"].astype(np.float64)
    else:
        first = random.choice(sample, num_clusters, replace=False)
        order = np.argsort(first)
        centroids = np.empty((num_clusters, rows.width))
        centroids[order] = train.gather(first[order])
        begin = 0
    lloyd_steps = load_faiss().contrib.clustering.kmeans
    saved = time.monotonic()
    step = f"{num_clusters} clusters of {len(train)} rows"
    with progress(step, config.num_iterations - begin, config.checkpointer is not None) as advance:
        for iteration in range(begin, config.num_iterations):
            assigner.centroids = centroids
            with contextlib.redirect_stdout(io.StringIO()):
                centroids, (stats,) = lloyd_steps(
                    num_clusters,
                    assigner,
                    niter=1,
                    seed=config.seed + iteration,
                    verbose=False,
                    return_stats=True,
                )
            log.debug("iteration %d: %d rows moved", iteration, assigner.moved)
            if not assigner.moved and not stats["nsplit"]:
                break
            if config.checkpointer is not None and time.monotonic() - saved > KEEP_EVERY:
                done = {
                    "centroids": unit_centroids(centroids),
                    "iteration": np.array([iteration + 1]),
                }
                config.checkpointer.save(state, done)
                saved = time.monotonic()
            advance(1)
    unit = unit_centroids(centroids)
    if train is not rows:
        return unit, nearest_centroids(rows, unit, config)
    assigner.assign_to(unit)
    return unit, assigner.labels


def nearest_centroids(rows: Rows, centroids: Floats, config: KMeansConfig) -> Ints:
    """Each row's nearest centroid, int64 [n], by all processes together.

    Args:
        rows: [n, d].
        centroids: [K, d], of norm 1.
        config: memory and device are used.
    """
    assigner = Assigner(rows, len(centroids), config, sums=False)
    assigner.assign_to(centroids)
    return assigner.labels


def two_levels(rows: Rows, num_clusters: int, config: KMeansConfig) -> tuple[Floats, Ints]:
    """About sqrt(K) cells, then each cell's share of the K clusters inside it.

    Returns:
        Centroids float32 [K, d] of norm 1, and labels int64 [n].
    """
    plain = replace(config, checkpointer=None)
    _, cells = lloyd(rows, max(1, math.isqrt(num_clusters)), plain)
    sizes = np.bincount(cells)
    shares = np.diff(np.cumsum(sizes) * num_clusters // len(rows), prepend=0)
    # A cell gets a cluster at least where it has rows: the largest shares make up for it.
    shares = np.where(sizes > 0, np.maximum(shares, 1), 0)
    for _ in range(int(shares.sum()) - num_clusters):
        shares[shares.argmax()] -= 1
    order = np.argsort(cells, kind="stable")
    labels = np.empty(len(rows), np.int64)
    centroids = np.empty((num_clusters, rows.width), np.float32)
    end = np.cumsum(sizes)
    first = 0
    for cell, share in enumerate(shares.tolist()):
        if share:
            inside = order[end[cell] - sizes[cell] : end[cell]]
            centroids[first : first + share], own = lloyd(rows.subset(inside), share, plain)
            labels[inside] = own + first
            first += share
    return centroids, labels


def sums_by_label(rows: Rows, labels: Ints, num_clusters: int, config: KMeansConfig) -> Floats:
    """Sum of the rows of each cluster, float64 [K, D]."""
    height = max(1, min(4096, config.memory // 4 // (12 * rows.width)))
    sums = np.zeros((num_clusters, rows.width))
    for span, block in rows.blocks(height, own_share(len(rows))):
        shift(sums, block, np.full(len(block), -1), labels[span])
    return summed(sums)
