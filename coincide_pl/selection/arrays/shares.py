"""Divide a number of picks among groups, exactly."""

from __future__ import annotations

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Array, Floats, Ints


def shares(weights: Array, limits: Ints, count: int) -> Ints:
    """How many of `count` each group gives, in proportion to its weight.

    Each gets the whole part of what is due to it; what is left goes one by one to the largest
    fractions (of equal ones the first group), to groups that have room. Where groups are full, what
    they can't give is divided among the others in the same way.

    Args:
        weights: not negative, [G].
        limits: the most that each group can give, int [G].
        count: how many, at most the sum of the limits.

    Returns:
        int64 [G], whose sum is `count`.

    Raises:
        SelectionError: the groups can't give so many.
    """
    most = np.asarray(limits, np.int64)
    if count > most.sum():
        raise SelectionError(f"{len(most)} groups of {most.sum()} samples can't give {count}")
    given = np.zeros(len(most), np.int64)
    while (left := count - int(given.sum())) > 0:
        room = most - given
        own: Floats = np.where(room > 0, np.asarray(weights, np.float64), 0)
        if not own.sum() > 0:  # those with room weigh nothing: by what they have left
            own = room.astype(np.float64)
        due = np.round(left * own / own.sum(), 9)  # so that equal fractions are equal
        whole = np.minimum(np.floor(due).astype(np.int64), room)
        given += whole
        if (due <= room).all():
            order = np.argsort(np.floor(due) - due, kind="stable")
            order = order[(given < most)[order]]
            given[order[: left - int(whole.sum())]] += 1
    return given


def top_of_groups(scores: Floats, groups: Ints, counts: Ints) -> Ints:
    """The rows with the highest scores of each group, so many of it.

    Args:
        scores: [N]; of equal ones the lower row comes first.
        groups: int [N], 0 to G - 1.
        counts: int [G], how many of each.

    Returns:
        Rows int64, from the highest score to the lowest over all groups.
    """
    order = np.lexsort((-scores, groups))
    sizes = np.bincount(groups, minlength=len(counts))
    ranks = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    chosen = order[ranks < counts[groups[order]]]
    return chosen[np.lexsort((chosen, -scores[chosen]))]
