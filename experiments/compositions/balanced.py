"""What a method could reach that knew the compositions: as many samples of each."""

from __future__ import annotations

import numpy as np

from coincide_pl.selection import Picks, Pool, Selector


class Balanced(Selector):
    """Every composition gives as many random samples, or all that it has."""

    def __init__(self, seed: int = 0) -> None:
        """Keeps the seed.

        Args:
            seed: of the permutation.
        """
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """The first samples of each composition in a seeded permutation, the smallest first."""
        order = np.random.default_rng(self.seed).permutation(len(pool))
        sources = np.array([record.source for record in pool.records])[order]
        groups = sorted((order[sources == one] for one in np.unique(sources)), key=len)
        picked: list[np.ndarray] = []
        for i, group in enumerate(groups):
            picked.append(group[: (count - sum(map(len, picked))) // (len(groups) - i)])
        return Picks(np.concatenate(picked))
