"""Random: the baseline that every method must beat."""

from __future__ import annotations

import numpy as np

from coincide_pl.selection.selector import Picks, Pool, Selector


class Random(Selector):
    """Uniform, without replacement."""

    def __init__(self, seed: int = 0) -> None:
        """Sets the seed.

        Args:
            seed: seed of the permutation; a smaller count gives a prefix of a larger one.
        """
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """The first `count` rows of a seeded permutation."""
        return Picks(np.random.default_rng(self.seed).permutation(len(pool))[:count])
