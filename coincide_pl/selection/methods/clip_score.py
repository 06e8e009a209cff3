"""CLIPScore: the samples whose text says what their image shows."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coincide_pl.selection.arrays.ranking import ranked
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.signals.clip import ClipScore


class CLIPScore(Selector):
    """The highest cosines of CLIP's image and text embeddings (Hessel et al., EMNLP 2021).

    A sample without an image, whose score is below every cosine (-1), gets the median of the
    others: it is neither preferred nor avoided. Equal scores rank by row.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (ClipScore,)

    def pick(self, pool: Pool, count: int) -> Picks:
        """The `count` samples with the highest cosines."""
        scores = np.array(pool.signals[ClipScore.name], np.float64)  # [N]
        shown = scores >= -1.5  # rounding may take a cosine a little below -1
        if shown.any():
            scores[~shown] = np.median(scores[shown])
        return Picks(ranked(scores, count, "highest"))
