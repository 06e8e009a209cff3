"""EL2N: the samples whose answers the reference model gets wrong."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coincide_pl.selection.arrays.ranking import Keep, ranked
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.signals.likelihood import El2n


class EL2N(Selector):
    """Error L2-norm (Paul et al., NeurIPS 2021, arXiv 2107.07075).

    ‖softmax(logits) - onehot‖₂, averaged over a sample's answer tokens: by default the samples
    where it is highest. Equal scores rank by row.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (El2n,)

    def __init__(self, keep: Keep = "highest") -> None:
        """Sets which samples are kept.

        Args:
            keep: samples that are kept: those with the highest, the middle or the lowest values.
        """
        self.keep: Keep = keep

    def pick(self, pool: Pool, count: int) -> Picks:
        """The `count` samples whose values are the highest, in the middle or the lowest."""
        return Picks(ranked(np.asarray(pool.signals[El2n.name]), count, self.keep))
