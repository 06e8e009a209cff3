"""DICS: samples whose image, question and answer fit together, spread out."""

from __future__ import annotations

import numpy as np

from coincide_pl.selection.arrays.farthest import farthest_points
from coincide_pl.selection.arrays.ranking import ranked
from coincide_pl.selection.selector import Picks, Pool, Selector
from coincide_pl.signals.consistency import ResponseConsistency, VisualConsistency
from coincide_pl.signals.embeddings import LastToken


class Dics(Selector):
    """Data intrinsic consistency selection (Hong et al.; code named as cqu-student/DICS).

    From the visual and the response consistency of a sample,

        DIC = min(VIC, RIC)                                                        (eq. 6)

    and 1 without an image. Of a share p of the data (section 4, algorithm 1):

        p < 1/2     farthest-point sampling of p among the top 2 p by DIC
        p = 1/2     the top half
        p > 1/2     the top 2 p - 1, and 1 - p by farthest-point sampling of the rest

    Points are last-layer states of the last token; sampling begins with the largest norm (algorithm
    2). The paper's reference is tuned on a random 5 % first. Equal values rank by row.
    """

    signals = (VisualConsistency, ResponseConsistency, LastToken)

    def pick(self, pool: Pool, count: int) -> Picks:
        """Ranks by DIC, and spreads out."""
        consistency = np.minimum(
            np.asarray(pool.signals[VisualConsistency.name]),
            np.asarray(pool.signals[ResponseConsistency.name]),
        )
        n = len(pool)
        order = ranked(consistency, n, "highest")
        if 2 * count == n:
            return Picks(order[:count])
        core = max(0, 2 * count - n)
        candidates = np.sort(order[core : min(n, 2 * count)])
        points = pool.rows(LastToken.name).subset(candidates)
        spread = candidates[farthest_points(points, count - core)]
        return Picks(np.concatenate([order[:core], spread]))
