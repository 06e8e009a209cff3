"""PRISM: the images that are the least like all others, once what they share is taken away."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coincide_pl.selection.arrays.centered import Centered
from coincide_pl.selection.arrays.dtypes import Floats
from coincide_pl.selection.arrays.ranking import Keep, ranked
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.text_only import TextOnly, text_only_rows
from coincide_pl.signals.image_tokens import MeanImageToken


class Prism(Selector):
    """Self-pruning intrinsic selection (Bi et al., arXiv 2502.12119v4).

    F_i is the mean image token of a shallow layer, μ_F the mean of all F_i, and ρ(F_i, F_j) the
    cosine of F_i - μ_F and F_j - μ_F. The redundancy of sample i is its mean with the others,
    R_i = 1 / (N - 1) Σ_{j≠i} ρ(F_i, F_j); the lowest are kept. It is exact without pairs: the
    product with the sum of all unit vectors, less 1 for its own. Equal redundancies rank by row.

    Samples without an image have no F_i. The paper picks 30 % of those with one, and keeps all
    others beside them.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (MeanImageToken,)

    def __init__(self, keep: Keep = "lowest", text_only: TextOnly = "all", seed: int = 0) -> None:
        """Sets which samples are kept.

        Args:
            keep: samples that are kept: those with the lowest redundancy R, as in the paper, the
                middle or the highest.
            text_only: samples without an image that are picked: `all`, as in the paper; `share`, as
                many as their share of the data; `none`, unless there are too few others.
            seed: seed of the draw among samples without an image.
        """
        self.keep: Keep = keep
        self.text_only: TextOnly = text_only
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """The samples with the lowest redundancy, then those without an image.

        Raises:
            SelectionError: more samples without an image than are to be picked.
        """
        features = Centered.of(pool.rows(MeanImageToken.name))
        texts = text_only_rows(features.there, count, self.text_only, self.seed)
        best = ranked(redundancy(features), count - len(texts), self.keep)
        return Picks(np.concatenate([np.flatnonzero(features.there)[best], texts]))


def redundancy(features: Centered) -> Floats:
    """R, float64 [n]: the mean cosine of each centered row with the others."""
    total = np.zeros(features.rows.width)  # Σ u_j
    for _, units in features.units():
        total += units.sum(0)
    scores = np.empty(len(features))
    for span, units in features.units():
        own = units.any(1)  # u_i · u_i
        scores[span] = np.einsum("nd,d->n", units, total) - own
    return scores / max(1, len(features) - 1)
