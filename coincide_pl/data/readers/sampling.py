"""How many times each item of a data set stands in a mix."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from coincide_pl.errors import DataError

Order = Literal["first", "end", "random"]
"""Which items are taken, where not all are."""


@dataclass(frozen=True)
class Sampling:
    """A number of items, or a share of them; more than there are repeats them, or is all of them.

    Attributes:
        order: which items are taken.
        rows: number of items to take; None for a share.
        share: items to take, as a part of those there are; above 1, each is there several times.
        up: whether a share of an item counts as a whole one, and not as none.
        repeats: whether items are repeated where more are asked for than there are.
    """

    order: Order = "first"
    rows: int | None = None
    share: float = 1.0
    up: bool = False
    repeats: bool = True

    def __post_init__(self) -> None:
        """Refuses what is no number of items."""
        if not 0 <= self.amount < math.inf:
            raise ValueError(f"{self.amount} must be a number from 0 on")

    @property
    def amount(self) -> float:
        """The number, or the share."""
        return self.share if self.rows is None else self.rows

    @property
    def whole(self) -> int | None:
        """How often each item is there, where that is the same for all."""
        plain = self.rows is None and self.share == int(self.share)
        if not plain:
            return None
        return int(self.share) if self.repeats else min(int(self.share), 1)

    def counts(self, size: int, seed: tuple[int, ...]) -> npt.NDArray[np.int64]:
        """How many times each item is there, int64 [size].

        Args:
            size: number of items.
            seed: of the random order.
        """
        target = self.rows
        if target is None:
            target = (math.ceil if self.up else math.floor)(size * self.share)
        target = target if self.repeats else min(target, size)
        whole, rest = divmod(target, size) if size else (0, 0)
        counts = np.full(size, whole, np.int64)
        chosen: npt.NDArray[np.int64] = np.arange(size)
        if self.order == "random":
            chosen = np.random.default_rng(seed).permutation(size)
        counts[chosen[size - rest :] if self.order == "end" else chosen[:rest]] += 1
        return counts


def strategy(text: str) -> Sampling:
    """LLaVA-OneVision's `sampling_strategy`: `all`, `first:N`, `end:N` or `random:N`, N also `10%`.

    Raises:
        ValueError: it is none of these.
    """
    if text == "all":
        return Sampling()
    order, colon, amount = text.partition(":")
    if not colon or order not in get_args(Order) or not re.fullmatch(r"\d+%?", amount):
        raise ValueError(f"{text[:40]!r} is none of all, first:N, end:N, random:N, with N or N%")
    known: Order = "first" if order == "first" else "end" if order == "end" else "random"
    if amount.endswith("%"):
        return Sampling(known, share=int(amount[:-1]) / 100, up=True, repeats=False)
    return Sampling(known, rows=int(amount), repeats=False)


def with_sampling(name: str) -> tuple[str, Sampling | None]:
    """A name with what follows it: `%50` (Qwen-VL: percent) or `#500` (ms-swift: items), at random.

    Raises:
        DataError: the number is none.
    """
    found = re.fullmatch(r"(.+?)([%#])([\d_]*)", name.strip())
    if not found:
        return name.strip(), None
    if not found[3].strip("_"):
        raise DataError(f"datasets: {name!r}: a number must follow {found[2]!r}")
    amount = int(found[3])
    if found[2] == "%":
        return found[1], Sampling("random", share=amount / 100, repeats=False)
    return found[1], Sampling("random", rows=amount)
