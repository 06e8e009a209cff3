"""Perplexity: the samples whose answers are neither too likely nor too unlikely."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coincide_pl.selection.arrays.ranking import Keep, ranked
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.signals.likelihood import NegativeLogLikelihood


class Perplexity(Selector):
    """Perplexity of the answers (Marion et al., 2023, arXiv 2309.04564).

    exp(mean negative log-likelihood of a sample's answer tokens): by default the samples around the
    median. The signal is the mean itself, which ranks alike. Equal scores rank by row.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (NegativeLogLikelihood,)

    def __init__(self, keep: Keep = "middle") -> None:
        """Sets which samples are kept.

        Args:
            keep: samples that are kept: those with the highest, the middle or the lowest values.
        """
        self.keep: Keep = keep

    def pick(self, pool: Pool, count: int) -> Picks:
        """The `count` samples whose values are the highest, in the middle or the lowest."""
        return Picks(ranked(np.asarray(pool.signals[NegativeLogLikelihood.name]), count, self.keep))
