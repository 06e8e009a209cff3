"""The Gaussian kernel inside a cluster: its density, and picks that keep its distribution."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from coincide_pl.errors import SelectionError

MEMORY = 1 << 30
"""Bytes that one cluster's kernel may take before it is computed in blocks, again at each use."""


def density(
    features: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    bandwidth: float = 1.0,
    include_self: bool = True,
    memory: int = MEMORY,
) -> np.ndarray | Tensor:
    """D_i: the mean Gaussian kernel over all pairs of a cluster.

    k(x, y) = exp(-‖x - y‖² / (2 σ²)), in float64.

    Args:
        features: [N, D], any float dtype, also memory-mapped.
        labels: int [N], 0 to K - 1.
        bandwidth: σ.
        include_self: whether pairs of a sample with itself count, as in the authors' code; in the
            paper's sum they do not (a cluster of one then has density 1).
        memory: bytes of kernel held at once.

    Returns:
        float64 [K], 0 for an empty cluster; of the kind of `features`.
    """
    check_bandwidth(bandwidth)
    means = [
        _density(features[rows], bandwidth, include_self, memory) if len(rows) else 0.0
        for rows in members(labels)
    ]
    return np.array(means) if isinstance(features, np.ndarray) else torch.tensor(means).double()


def greedy_mmd(
    features: np.ndarray | Tensor, count: int, bandwidth: float = 1.0, memory: int = MEMORY
) -> np.ndarray | Tensor:
    """Greedily pick the samples whose kernel mean stays nearest to the cluster's.

    Each step adds the sample that makes MMD² = mean k(C, C) + mean k(P, P) - 2 mean k(C, P) of the
    picks P smallest; of equals the first. With g(c) = Σ_{p in P} k(p, c) and r(c) = mean_x k(x, c)
    kept as running sums, the candidate c adds (2 g(c) + k(c, c)) / m² - 2 r(c) / m at step m, up to
    terms that all candidates share: O(n) a pick.

    Args:
        features: [n, D], one cluster.
        count: how many, at most n.
        bandwidth: σ.
        memory: bytes of kernel held at once.

    Returns:
        int64 [count] in order of picking, of the kind of `features`.

    Raises:
        SelectionError: more are asked for than there are.
    """
    check_bandwidth(bandwidth)
    if not 0 <= count <= len(features):
        raise SelectionError(f"can't pick {count} of {len(features)} samples")
    rows = _float64(features)
    squares = rows.square().sum(1)
    n = len(rows)
    whole = kernel(rows, squares, slice(None), bandwidth) if 8 * n * n <= memory else None
    if whole is None:
        means = torch.cat([b.mean(1) for b in _blocks(rows, squares, bandwidth, memory)])
    else:
        means = whole.mean(0)
    near = torch.zeros(n, dtype=torch.float64)  # g, at the samples not picked yet
    picks = np.empty(count, np.int64)
    score = torch.empty(n, dtype=torch.float64)
    for m in range(1, count + 1):
        torch.add(2 * near, 1.0, out=score)
        score.div_(m * m).sub_(means, alpha=2 / m)
        best = int(score.argmin())
        picks[m - 1] = best
        row = (
            kernel(rows, squares, slice(best, best + 1), bandwidth)[0]
            if whole is None
            else whole[best]
        )
        near += row
        near[best] = torch.inf
    return picks if isinstance(features, np.ndarray) else torch.from_numpy(picks)


def kernel(rows: Tensor, squares: Tensor, block: slice, bandwidth: float) -> Tensor:
    """Gaussian kernel of some rows with all, float64 [block, n]."""
    distances = squares[block, None] + squares[None, :] - 2.0 * (rows[block] @ rows.T)
    return torch.exp(-distances / (2 * bandwidth**2))


def members(labels: np.ndarray | Tensor) -> list[np.ndarray]:
    """The rows of each cluster, ascending, for labels 0 to max."""
    array = np.asarray(labels)
    order = np.argsort(array, kind="stable")
    return np.split(order, np.cumsum(np.bincount(array))[:-1])


def check_bandwidth(bandwidth: float) -> None:
    """Refuse a bandwidth that is no positive number."""
    if not 0 < bandwidth < float("inf"):
        raise SelectionError(f"bandwidth: {bandwidth} must be a positive number")


def _density(features: np.ndarray | Tensor, bandwidth: float, self_too: bool, memory: int) -> float:
    rows = _float64(features)
    n = len(rows)
    blocks = _blocks(rows, rows.square().sum(1), bandwidth, memory)
    if 8 * n * n <= memory and self_too:
        return float(next(blocks).mean())
    total = float(sum(block.sum() for block in blocks))
    if self_too:
        return total / (n * n)
    return (total - n) / (n * (n - 1)) if n > 1 else 1.0


def _blocks(rows: Tensor, squares: Tensor, bandwidth: float, memory: int) -> Iterator[Tensor]:
    height = max(1, memory // (8 * len(rows)))
    for start in range(0, len(rows), height):
        yield kernel(rows, squares, slice(start, start + height), bandwidth)


def _float64(features: np.ndarray | Tensor) -> Tensor:
    if isinstance(features, Tensor):
        return features.double()
    return torch.from_numpy(np.asarray(features, np.float64))
