"""How many samples each cluster gives (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from coincide_pl.errors import SelectionError


@dataclass(frozen=True)
class Walk:
    """Budgets as they came about.

    Attributes:
        order: int64 [K], clusters from the largest share to the smallest.
        official: int64 [K], what the authors' walk gives each cluster.
        whole: bool [K], clusters smaller than their share, which the walk takes as they are.
        total: int64 [K], the same after the shortfall was handed out.
    """

    order: np.ndarray
    official: np.ndarray
    whole: np.ndarray
    total: np.ndarray


def budgets(
    transferability: np.ndarray | torch.Tensor,
    density: np.ndarray | torch.Tensor,
    sizes: np.ndarray | torch.Tensor,
    count: int,
    temperature: float = 0.1,
) -> np.ndarray | torch.Tensor:
    """Samples per cluster, P_i ∝ exp(S_i / (τ D_i)), `count` in all.

    Args:
        transferability: S, [K].
        density: D, [K]; ignored where a cluster is empty.
        sizes: int [K].
        count: samples wanted.
        temperature: τ.

    Returns:
        int64 [K], of the kind of `sizes`.

    Raises:
        SelectionError: the count is not to be had, or an input is not finite.
    """
    total = walk(
        np.asarray(transferability), np.asarray(density), np.asarray(sizes), count, temperature
    ).total
    return torch.from_numpy(total) if isinstance(sizes, torch.Tensor) else total


def walk(
    transferability: np.ndarray,
    density: np.ndarray,
    sizes: np.ndarray,
    count: int,
    temperature: float,
) -> Walk:
    """The authors' walk, then the shortfall handed out in the same order.

    From the largest share to the smallest, a cluster gets round(remaining * its share among the
    clusters not yet visited), or all its samples if it has fewer, and what it could not take stays
    in the remainder. With scores sorted downwards a share is 1 / Z_i,
    Z_i = 1 + Z_{i+1} exp((s_{i+1} - s_i) / τ), which can't overflow.
    """
    if not 0 < temperature < float("inf"):
        raise SelectionError(f"temperature: {temperature} must be a positive number")
    if not 0 <= count <= sizes.sum():
        raise SelectionError(f"can't select {count} of {int(sizes.sum())} samples")
    present = np.flatnonzero(sizes)
    scores = (1 / density[present].astype(np.float64)) * transferability[present]
    if not np.isfinite(scores).all():
        cluster = present[~np.isfinite(scores)][0]
        raise SelectionError(f"cluster {cluster}: transferability / density is not a finite number")
    descending = np.argsort(scores, kind="stable")[::-1]
    order, scores = present[descending], scores[descending] / temperature
    parts = np.ones(len(order))
    for i in range(len(order) - 2, -1, -1):
        parts[i] += parts[i + 1] * np.exp(scores[i + 1] - scores[i])
    official = np.zeros(len(sizes), np.int64)
    whole = np.zeros(len(sizes), bool)
    remaining = count
    for cluster, part in zip(order, parts, strict=True):
        share = round(remaining / part)
        whole[cluster] = share > sizes[cluster]
        official[cluster] = min(share, sizes[cluster])
        remaining -= int(official[cluster])
    total = official.copy()
    for cluster in order:
        more = min(remaining, int(sizes[cluster] - total[cluster]))
        total[cluster] += more
        remaining -= more
    return Walk(order, official, whole, total)
