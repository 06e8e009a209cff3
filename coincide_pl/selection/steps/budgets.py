"""How many samples each cluster gives (paper, section 3.3)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import ArrayLike, Bools, Floats, Ints, like
from coincide_pl.selection.steps.checks import count_of, numbers, positive, whole_numbers


def budgets(
    transferability: ArrayLike,
    density: ArrayLike,
    sizes: ArrayLike,
    count: int,
    temperature: float = 0.1,
) -> ArrayLike:
    """Samples per cluster, P_i ∝ exp(S_i / (τ D_i)), `count` in all.

    They are the authors' budgets, see `official_budgets`, and what these fall short of the count,
    handed out in the same order to the clusters with samples left.

    Args:
        transferability: S, [K].
        density: D, [K]; ignored where a cluster is empty.
        sizes: samples of each cluster, int [K].
        count: samples wanted.
        temperature: τ.

    Returns:
        int64 [K], of the kind of `sizes`.

    Raises:
        SelectionError: the count is not to be had, or an input is not finite.

    Example:
        >>> import numpy as np
        >>> transferability, density = np.array([0.7, 0.6]), np.array([0.5, 0.5])
        >>> budgets(transferability, density, np.array([10, 10]), 12)
        array([10,  2])
    """
    scores, dense = numbers("transferability", transferability), numbers("density", density)
    room = whole_numbers("sizes", sizes)
    official = official_budgets(scores, dense, room, count, temperature)
    total = official.counts.copy()
    remaining = count - int(total.sum())
    for cluster in official.order:
        more = min(remaining, int(room[cluster] - total[cluster]))
        total[cluster] += more
        remaining -= more
    return like(total, sizes)


LARGEST = float(np.finfo(np.float64).max)
"""Stands for what is larger: a share of a density that is next to nothing."""


@dataclass(frozen=True)
class Budgets:
    """What the authors' walk over the clusters gives each of them; it may end short.

    Attributes:
        order: int64, the clusters with samples, from the largest share to the smallest.
        counts: int64 [K], samples of each cluster.
        whole: bool [K], clusters smaller than their share, which are taken as they are.
    """

    order: Ints
    counts: Ints
    whole: Bools


def official_budgets(
    transferability: Floats, density: Floats, sizes: Ints, count: int, temperature: float
) -> Budgets:
    """Samples per cluster as the authors' code gives them; they may sum to less than the count.

    From the largest share to the smallest, a cluster gets round(remaining * its share among the
    clusters not yet visited), or all its samples if it has fewer, and what it could not take stays
    in the remainder. With scores sorted downwards a share is 1 / Z_i,
    Z_i = 1 + Z_{i+1} exp((s_{i+1} - s_i) / τ), which can't overflow.

    Raises:
        SelectionError: the count is not to be had, or an input is not finite.
    """
    positive(temperature=temperature)
    if not len(transferability) == len(density) == len(sizes):
        raise SelectionError(
            f"transferability, density and sizes are of {len(transferability)}, {len(density)} and "
            f"{len(sizes)} clusters"
        )
    count = count_of(count, int(sizes.sum()))
    present = np.flatnonzero(sizes)
    usable = np.isfinite(transferability) & np.isfinite(density) & (density > 0)
    if not usable[present].all():
        cluster = present[np.argmin(usable[present])]
        raise SelectionError(
            f"cluster {cluster}: its transferability, {transferability[cluster]}, must be finite, "
            f"and its density, {density[cluster]}, positive and finite"
        )
    with np.errstate(over="ignore"):
        scores = (1 / density[present].astype(np.float64)) * transferability[present]
        descending = np.argsort(scores, kind="stable")[::-1]
        order, scores = present[descending], scores[descending] / temperature
    scores = np.clip(scores, -LARGEST, LARGEST)
    parts = np.ones(len(order))
    for i in range(len(order) - 2, -1, -1):
        parts[i] += parts[i + 1] * np.exp(scores[i + 1] - scores[i])
    counts = np.zeros(len(sizes), np.int64)
    whole = np.zeros(len(sizes), bool)
    remaining = count
    for cluster, part in zip(order, parts, strict=True):
        share = round(remaining / part)
        whole[cluster] = share > sizes[cluster]
        counts[cluster] = min(share, sizes[cluster])
        remaining -= int(counts[cluster])
    return Budgets(order, counts, whole)
