"""A count divided over several groups by weights, exactly."""

from __future__ import annotations

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Floats, Ints


def apportioned(weights: Floats, sizes: Ints, count: int) -> Ints:
    """A count divided by weights, by largest remainders, no part above its size.

    Args:
        weights: [S], not negative.
        sizes: int [S], the most that each may get.
        count: what is divided.

    Returns:
        int64 [S], of sum `count`.

    Raises:
        SelectionError: what has a weight is smaller than the count.
    """
    room = np.where(weights > 0, sizes, 0).astype(np.int64)
    if room.sum() < count:
        raise SelectionError(f"shares: the sources that have some hold {room.sum()} of {count}")
    whole = room == 0
    while True:  # sources that are taken whole, until no other is
        left = count - room[whole].sum()
        quotas = np.where(whole, 0.0, weights)
        quotas = quotas * left / quotas.sum() if left else np.zeros(len(quotas))
        quotas = np.round(quotas, 9)  # so that equal remainders are equal
        if not (small := ~whole & (quotas >= room)).any():
            break
        whole |= small
    counts = np.where(whole, room, np.floor(quotas).astype(np.int64))
    order = np.lexsort((np.arange(len(room)), np.floor(quotas) - quotas))
    counts[order[~whole[order]][: count - counts.sum()]] += 1
    return counts
