"""Read memory-mapped rows a block at a time."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

import numpy as np
import torch
from torch.nn import functional

FLOATS = 1 << 25
"""Numbers of a block, 128 MiB in float32."""


class Rows(Protocol):
    """What is read of features [N, D]: an array, a memory map, or several side by side."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N and D."""

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        """Some rows."""


class SideBySide:
    """Arrays [N, D_i] read as one of [N, ΣD_i]; nothing is copied but what is asked for."""

    def __init__(self, *parts: np.ndarray) -> None:
        """Keeps the arrays."""
        self.parts = parts
        self.shape = (len(parts[0]), sum(part.shape[1] for part in parts))

    def __getitem__(self, rows: slice | np.ndarray, /) -> np.ndarray:
        """Some rows, side by side."""
        return np.concatenate([part[rows] for part in self.parts], 1)


def blocks(num_rows: int, width: int) -> Iterator[slice]:
    """Slices over all rows, of at most `FLOATS` numbers where a row has `width`."""
    step = max(1, FLOATS // max(1, width))
    for start in range(0, num_rows, step):
        yield slice(start, min(start + step, num_rows))


def float_rows(
    features: Rows, rows: slice | np.ndarray, normalize: bool, dtype: type[np.floating] = np.float32
) -> np.ndarray:
    """Some rows as floats, contiguous, of norm 1 if so wanted; a row of zeros stays."""
    read = torch.from_numpy(np.require(features[rows], requirements="W"))  # no view of the file
    block = read.to(torch.float64 if dtype is np.float64 else torch.float32)
    return (functional.normalize(block, dim=1, out=block) if normalize else block).numpy()


def centroid_cosines(features: Rows, centroids: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The cosine of each row with the centroid of its cluster.

    Args:
        features: [N, D].
        centroids: float32 [K, D], of norm 1.
        labels: int64 [N].

    Returns:
        float32 [N].
    """
    out = np.empty(len(labels), np.float32)
    for part in blocks(len(labels), features.shape[1]):
        rows = float_rows(features, part, normalize=True)
        out[part] = np.einsum("nd,nd->n", rows, centroids[labels[part]])
    return out
