"""Lloyd's algorithm for spherical k-means, split over the processes by rows and by clusters."""

from __future__ import annotations

import logging

import numpy as np

from coincide_pl.processes import group_size, shares
from coincide_pl.progress import progress
from coincide_pl.selection.arrays.assigner import Assigner, KMeansConfig, fits_whole
from coincide_pl.selection.arrays.dtypes import Floats, Ints
from coincide_pl.selection.arrays.empty_clusters import refill
from coincide_pl.selection.arrays.exact import unit_centroids
from coincide_pl.selection.arrays.kept_centroids import KeptCentroids
from coincide_pl.selection.arrays.own_sums import OwnSums, moved_sums, shift
from coincide_pl.selection.arrays.rows import BLOCK, Rows, spans
from coincide_pl.selection.arrays.sent_rows import rows_for_all

log = logging.getLogger(__name__)

POINTS_PER_CENTROID = 256
"""Rows used per centroid to train, as Faiss does by default; all rows are assigned."""


def lloyd(rows: Rows, num_clusters: int, config: KMeansConfig) -> tuple[Floats, Ints]:
    """Lloyd's algorithm, from initial centroids that are rows drawn from the seed.

    A killed run goes on from its last centroids; it ends when nothing changes. Clusters that lose
    all their rows take half of a larger one.

    Returns:
        The centroids that this process owns, float32 [own clusters, d] of norm 1, and the labels of
        its own rows, int64 [own rows].
    """
    random = np.random.default_rng(config.seed)
    sample = min(len(rows), config.fit_rows or POINTS_PER_CENTROID * num_clusters)
    train = rows
    if sample < len(rows):
        train = rows.subset(np.sort(random.choice(len(rows), sample, replace=False)))
    assigner = Assigner(train, num_clusters, config)
    kept = KeptCentroids(state_name(config.seed), assigner.clusters, config.checkpointer)
    begin, centroids = kept.load()
    if centroids is None:
        first = random.choice(sample, num_clusters, replace=False)
        centroids = unit_centroids(some_rows(train, first, assigner.height(1)))
    step = f"{num_clusters} clusters of {len(train)} rows"
    with progress(step, config.num_iterations - begin, config.checkpointer is not None) as advance:
        for iteration in range(begin, config.num_iterations):
            assigner.assign_to(centroids)
            sizes = assigner.sizes()
            means = assigner.means(sizes)
            splits = refill(means, sizes, config.seed + iteration, len(train))
            centroids = unit_centroids(means)
            log.debug("iteration %d: %d rows moved", iteration, assigner.moved)
            if not assigner.moved and not splits:
                break
            kept.keep(iteration + 1, centroids)
            advance(1)
    if train is not rows:
        return centroids, nearest_centroids(rows, centroids, num_clusters, config)
    assigner.assign_to(centroids)
    return centroids, assigner.labels


def state_name(seed: int) -> str:
    """Under which a checkpointer keeps a clustering under way."""
    return f"kmeans-{seed}"


def some_rows(rows: Rows, numbers: Ints, height: int) -> Floats:
    """Rows for the clusters that this process owns, where there is a row for each cluster.

    Args:
        rows: [n, d].
        numbers: int64 [K], the rows, in any order.
        height: rows sent at once.

    Returns:
        float64 [own clusters, d].
    """
    wanted = [numbers[share] for share in shares(len(numbers))]
    own = wanted[group_size()[1]]
    found = np.empty((len(own), rows.width))
    found[np.argsort(own)] = rows.delivered([np.sort(some) for some in wanted], height)
    return found


def nearest_centroids(
    rows: Rows, centroids: Floats, num_clusters: int, config: KMeansConfig
) -> Ints:
    """The nearest centroid of each row of this process, int64 [own rows].

    Args:
        rows: [n, d].
        centroids: float32 [own clusters, d], of norm 1.
        num_clusters: K.
        config: memory and device are used.
    """
    assigner = Assigner(rows, num_clusters, config, sums=False)
    assigner.assign_to(centroids)
    return assigner.labels


def sums_by_label(rows: Rows, labels: Ints, num_clusters: int, config: KMeansConfig) -> Floats:
    """Sums of the rows of the clusters that this process owns, float64 [own clusters, D].

    Processes send each other sums of their own rows, or, where these are more bytes than the rows,
    each sums the rows of its own clusters.

    Args:
        rows: [N, D].
        labels: int64 [N].
        num_clusters: K.
        config: memory is used.
    """
    height = max(1, min(BLOCK // rows.row_bytes, config.memory // 4 // (12 * rows.width)))
    sums = OwnSums(num_clusters, rows.width, config.memory)
    ranks, _ = group_size()
    held, own = rows.own, sums.own
    mine = labels[held]
    if ranks > 1 and 8 * ranks * num_clusters > rows.dtype.itemsize * len(rows):
        wanted = np.flatnonzero((own.start <= labels) & (labels < own.stop))
        owners = np.repeat(
            np.arange(ranks), [share.stop - share.start for share in shares(num_clusters)]
        )
        with rows_for_all(rows, wanted, owners[mine], config.memory) as (source, numbers):
            parts = list(spans(len(numbers), height))
            blocks = source.gathers(numbers[part] for part in parts)
            for part, block in zip(parts, blocks, strict=True):
                to = labels[wanted[part]] - own.start
                shift(sums.values, block, np.full(len(to), -1), to)
    elif fits_whole(num_clusters, rows.width, config.memory):
        every = sums.values if ranks == 1 else np.zeros((num_clusters, rows.width))
        for span, block in rows.blocks(height, held):
            shift(every, block, np.full(len(block), -1), labels[span])
        if ranks > 1:
            sums.add(np.unique(mine), every.__getitem__, rows.dtype == np.float16)
    else:
        clusters, partial = moved_sums(rows, np.full(len(mine), -1), mine, height)
        sums.add(clusters, partial, rows.dtype == np.float16)
    return sums.values
