"""As many samples from each of several groups as their sizes allow."""

from __future__ import annotations

import numpy as np

from coincide_pl.selection.arrays.dtypes import Ints


def even_shares(sizes: Ints, count: int, random: np.random.Generator) -> Ints:
    """How many samples each group gives, so that all give as many or everything they have.

    The largest x with Σ min(x, size) ≤ count is what each gives; what is left of the count comes
    from groups with more, one each, drawn at random.

    Args:
        sizes: int [G], samples of each group.
        count: samples in all, at most the sum of the sizes.
        random: draws the groups that give one more.

    Returns:
        int64 [G], of sum `count`.
    """
    low, high = 0, int(sizes.max(initial=0))
    while low < high:
        middle = (low + high + 1) // 2
        if np.minimum(sizes, middle).sum() <= count:
            low = middle
        else:
            high = middle - 1
    shares = np.minimum(sizes, low).astype(np.int64)
    larger = np.flatnonzero(sizes > low)
    shares[random.permutation(larger)[: count - int(shares.sum())]] += 1
    return shares
