"""Choose by one score: the highest, the middle or the lowest."""

from __future__ import annotations

from typing import Literal

import numpy as np

from coincide_pl.selection.arrays.dtypes import Floats

Keep = Literal["highest", "middle", "lowest"]


def ranked(scores: Floats, count: int, keep: Keep) -> np.ndarray:
    """The rows whose scores are the highest, around the median, or the lowest.

    Args:
        scores: [N]; equal ones rank by row.
        count: how many.
        keep: which end, or the middle: as many ranks below it are left out as above, one more
            above where that does not divide.

    Returns:
        int64 [count], the most extreme first; the middle from low to high.
    """
    if keep == "highest":
        return np.argsort(-scores, kind="stable")[:count]
    ascending = np.argsort(scores, kind="stable")
    start = (len(scores) - count) // 2 if keep == "middle" else 0
    return ascending[start : start + count]
