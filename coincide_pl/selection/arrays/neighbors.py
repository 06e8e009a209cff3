"""Each sample's nearest neighbors with Faiss: exact for small pools, approximate for large."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from coincide_pl.selection.arrays.dtypes import ArrayLike, Floats, Ints
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.arrays.with_faiss import load_faiss

if TYPE_CHECKING:
    import faiss

EXACT_BELOW = 50_000
"""Pools from this size on are searched approximately, unless a method is told another number."""
WIDTH = 256
"""Principal components that the approximate search compares."""
PROBES = 32
"""Inverted lists that it looks into."""
PER_LIST = 40
"""Samples per list that its lists are learned from."""
FOR_COMPONENTS = 20_000
"""Samples that its components are learned from."""
IN_CACHE = 1 << 20
"""Numbers that are gathered at a time to be measured, 4 MiB."""


@dataclass(frozen=True)
class Neighbors:
    """The k nearest of each of N rows, the row itself left out, nearest first.

    Attributes:
        rows: int32 [N, k], -1 where none was found.
        distances: float32 [N, k], squared; infinite where none was found.
    """

    rows: Ints
    distances: Floats


def nearest_neighbors(
    features: ArrayLike | Rows,
    k: int,
    normalize: bool = True,
    exact_below: int = EXACT_BELOW,
    seed: int = 0,
) -> Neighbors:
    """Find each row's nearest by Euclidean distance.

    Small pools are compared pair by pair. Larger ones go into an index of inverted lists over
    `WIDTH` principal components in half precision, 512 bytes a row, and the nearest that it finds
    are measured and ordered anew by their whole rows.

    Args:
        features: [N, D] of any float dtype, also memory-mapped, or several side by side as `Rows`.
        k: how many, at most N - 1.
        normalize: scale rows to norm 1 first; then squared distance and cosine c go together,
            d² = 2 - 2 c.
        exact_below: N from which on the search is approximate.
        seed: of the rows that the index is trained on.

    Returns:
        k columns, or N - 1 where that is less; of equal distances the lower row first.
    """
    features = Rows.of(features)
    n, width = len(features), features.width
    k = min(k, n - 1)
    index: faiss.Index
    if n < exact_below:
        index = load_faiss().IndexFlatL2(width)
        for part in features.float_spans():
            index.add(features.floats(part, normalize))
        project = None
    else:
        index, project = _index(features, normalize, seed)
    asked = min(n, k + 1 + k // 2)  # itself, and some to choose from
    rows = np.empty((n, k), np.int32)
    distances = np.empty((n, k), np.float32)
    for part in features.float_spans():
        own = features.floats(part, normalize)  # [B, D]
        found = index.search(own if project is None else project.apply(own), asked)[1]
        here = np.arange(part.start, part.stop)
        rows[part], distances[part] = _measured(features, own, here, found, k, normalize)
    return Neighbors(rows, distances)


def _measured(
    features: Rows, own: Floats, here: Ints, found: Ints, k: int, normalize: bool
) -> tuple[Ints, Floats]:
    """The k nearest among rows found [B, asked], by their distance from `own` [B, D]."""
    squared = np.empty(found.shape, np.float32)
    step = max(1, IN_CACHE // (own.shape[1] * found.shape[1]))
    for i in range(0, len(own), step):
        some = found[i : i + step]
        there = features.floats(np.maximum(some, 0).ravel(), normalize)
        apart = torch.from_numpy(there.reshape(*some.shape, -1))
        apart -= torch.from_numpy(own[i : i + step, None])
        squared[i : i + step] = apart.square_().sum(2).numpy()
    squared[(found < 0) | (found == here[:, None])] = np.inf
    order = np.lexsort((found, squared), axis=1)[:, :k]
    distances = np.take_along_axis(squared, order, 1)
    rows = np.take_along_axis(found, order, 1)
    return np.where(np.isinf(distances), -1, rows), distances


def _index(features: Rows, normalize: bool, seed: int) -> tuple[faiss.Index, faiss.PCAMatrix]:
    """An index of inverted lists over all rows, and what projects rows for it."""
    library = load_faiss()
    n, width = len(features), features.width
    kept = min(WIDTH, width)
    num_lists = max(1, int(4 * math.sqrt(n)))
    random = np.random.default_rng(seed)

    def sample(size: int) -> Ints:
        return np.sort(random.choice(n, min(size, n), replace=False))

    project = library.PCAMatrix(width, kept)
    project.train(features.floats(sample(max(FOR_COMPONENTS, width)), normalize))
    quantizer = library.IndexFlatL2(kept)
    index = library.IndexIVFScalarQuantizer(
        quantizer, kept, num_lists, library.ScalarQuantizer.QT_fp16, library.METRIC_L2
    )
    index.nprobe = min(PROBES, num_lists)
    index.cp.min_points_per_centroid, index.cp.max_points_per_centroid = 1, PER_LIST
    chosen = sample(PER_LIST * num_lists)
    index.train(
        np.concatenate(
            [
                project.apply(features.floats(chosen[part], normalize))
                for part in features.float_spans(len(chosen))
            ]
        )
    )
    for part in features.float_spans():
        index.add(project.apply(features.floats(part, normalize)))
    return index, project
