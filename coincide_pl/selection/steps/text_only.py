"""Samples without an image, for methods whose rule is about images."""

from __future__ import annotations

from typing import Literal

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Bools, Ints

TextOnly = Literal["all", "share", "none"]
"""How many samples without an image are picked: every one, as many as their share of the data, or
only what samples with an image leave to pick."""


def text_only_rows(shown: Bools, count: int, text_only: TextOnly, seed: int) -> Ints:
    """The samples without an image that a choice of `count` holds.

    Args:
        shown: bool [N], which samples have an image.
        count: samples to pick in all, at most N.
        text_only: how many of them have no image.
        seed: of the draw, where not all of them are picked.

    Returns:
        int64, ascending. The other picks have images.

    Raises:
        SelectionError: every one is wanted, and there are more than `count`.
    """
    rows = np.flatnonzero(~shown)
    wanted = {"all": len(rows), "share": round(count * len(rows) / len(shown)), "none": 0}
    number = max(wanted[text_only], count - (len(shown) - len(rows)))
    if number > count:
        raise SelectionError(
            f"text_only: the {len(rows)} samples without an image are more than the {count} to "
            "pick; give --data.selector.text_only=share, or a larger data.fraction"
        )
    return np.sort(np.random.default_rng(seed).permutation(rows)[:number])
