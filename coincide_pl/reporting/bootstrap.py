"""Difference of two methods with a bootstrap interval: how sure it is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.floating]
"""An array of real numbers, whatever their precision."""
Correct = dict[str, Floats]
"""Scores of the questions by task, float32 [questions of the task]."""
BLOCK = 1 << 24
"""Number of answers drawn at a time."""


def paired_difference(
    ours: Sequence[Correct],
    theirs: Sequence[Correct],
    full: dict[str, float],
    resamples: int = 2000,
    level: float = 0.95,
    seed: int = 0,
) -> tuple[float, float, float]:
    """Difference in relative performance, with a bootstrap percentile interval.

    Seeds are drawn with replacement, and within each task its questions, the same for both methods
    (Efron and Tibshirani, 1993, chapter 8). The scores on all data are taken as they are. With one
    seed the interval is that of the questions alone.

    Args:
        ours: scores of one method, for each seed.
        theirs: scores of the other method, for each seed in the same order.
        full: scores on all data by task, above 0.
        resamples: number of draws.
        level: share of the draws that lie in the interval.
        seed: seed of the draws.

    Returns:
        ours - theirs in relative performance, and the interval's ends.
    """
    random = np.random.default_rng(seed)
    num_seeds = len(ours)
    drawn_seeds = random.integers(0, num_seeds, (resamples, num_seeds))
    total, observed = np.zeros(resamples), 0.0
    for task, score in full.items():
        apart = np.stack([a[task] - b[task] for a, b in zip(ours, theirs, strict=True)])  # [S, n]
        n = apart.shape[1]
        means = np.empty((resamples, num_seeds))
        step = max(1, BLOCK // n)
        for i in range(0, resamples, step):
            drawn = random.integers(0, n, (min(step, resamples - i), n))
            means[i : i + step] = apart[:, drawn].mean(2).T
        weight = 1 / (score * len(full))
        total += weight * np.take_along_axis(means, drawn_seeds, 1).mean(1)
        observed += weight * float(apart.mean())
    low, high = np.quantile(total, [(1 - level) / 2, (1 + level) / 2])
    return observed, float(low), float(high)
