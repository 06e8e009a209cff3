"""All: no selection, for the run that every subset is compared with."""

from __future__ import annotations

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.selector import Picks, Pool, Selector


class All(Selector):
    """Every sample, in record order; goes with a fraction of 1."""

    def pick(self, pool: Pool, count: int) -> Picks:
        """Every sample, in record order.

        Raises:
            SelectionError: fewer are asked for.
        """
        if count != len(pool):
            raise SelectionError(f"fraction: All selects all {len(pool)} samples, not {count}")
        return Picks(np.arange(count))
