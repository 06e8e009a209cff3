"""Products of an earlier round of k-means, which tell most rows' nearest centroids of this one."""

from __future__ import annotations

import numpy as np

from coincide_pl.selection.arrays.dtypes import Bools, Floats, Ints
from coincide_pl.selection.arrays.exact import STEP
from coincide_pl.selection.arrays.rows import spans

SPENT = 0.6
"""Passes over all rows that unsure rows may cost in sum before the table is made anew."""
DIRECTIONS = 1e-3
"""Smallest share of the largest eigenvalue with which a direction of the old centroids counts."""
AT_ONCE = 1 << 20
"""Bounds that are computed together: what a cache holds."""


class Table:
    """Bounds of a row's inner products with centroids c from those with older ones b.

    With c_k = b_k + Σ_j a_kj b_j + r_k, where r_k stands at right angles to the older centroids,
    <x, c_k> = <x, b_k> + Σ_j a_kj <x, b_j> + <x', r_k> for the part x' of x that does so too, and
    |<x', r_k>| ≤ ‖x'‖ ‖r_k‖. So K numbers a row take the place of its d entries. Centroids that
    hardly move have short r_k, and few rows are left unsure.

    Attributes:
        products: float32 [n, K], of rows and older centroids.
        norms: float32 [n], of the rows.
        scores: float32 [n], about the inner product of a row with its own centroid.
        slack: float32 [n], how much that may be off.
        spent: passes over all rows that unsure rows have cost since the table was made.
    """

    def __init__(self, num_rows: int, num_clusters: int) -> None:
        """Makes room.

        Args:
            num_rows: n, of this process.
            num_clusters: K.
        """
        self.products = np.empty((num_rows, num_clusters), np.float32)
        self.norms, self.scores, self.slack, self._apart = np.zeros((4, num_rows), np.float32)
        self.error = self.spent = 0.0
        self.unit: Floats | None = None

    def renew(self, unit: Floats, error: float) -> None:
        """Takes other centroids as the older ones, once products, norms and scores are theirs.

        Args:
            unit: float32 [K, d].
            error: how much a product may be off, for a row of norm 1.
        """
        self.unit, self.error, self.spent = unit, error, 0.0
        wide = unit.astype(np.float64)
        values, vectors = np.linalg.eigh(wide @ wide.T)
        used = values > DIRECTIONS * values[-1]
        turned = vectors[:, used] / np.sqrt(values[used])  # <x, b> turned: coordinates of x
        self._inverse = turned @ turned.T
        off = error * np.sqrt(len(unit) / values[used][0])
        for span in spans(len(self.norms), self._height):
            norms = self.norms[span].astype(np.float64)
            inside = np.linalg.norm(self.products[span] @ turned, axis=1) - off * norms
            apart = np.square(norms) - np.square(np.maximum(inside, 0))
            self._apart[span] = np.sqrt(np.maximum(apart, 0)) + 1e-6 * norms

    @property
    def _height(self) -> int:
        return max(1, AT_ONCE // self.products.shape[1])

    def narrow(self, unit: Floats, changed: Bools, labels: Ints) -> Bools | None:
        """Gives rows whose nearest centroid is sure their labels, in place.

        Args:
            unit: float32 [K, d], the centroids now.
            changed: bool [K], those that are others than when `labels` were found.
            labels: int64 [n], of the rows.

        Returns:
            Which rows are unsure, bool [n]; None if a table made anew costs less.
        """
        if self.unit is None:
            return None
        moved = np.flatnonzero((unit != self.unit).any(1))
        apart = unit[moved].astype(np.float64) - self.unit[moved]
        old = self.unit.astype(np.float64)
        share = (apart @ old.T) @ self._inverse  # a
        lengths, off = np.zeros(len(unit), np.float32), np.ones(len(unit), np.float32)
        lengths[moved] = np.linalg.norm(apart - share @ old, axis=1) + 1e-9  # ‖r‖
        off[moved] += np.abs(share).sum(1)
        off *= self.error + 1.02 * (len(unit) + 8) * STEP
        weights = np.eye(len(unit), dtype=np.float32)
        weights[:, moved] += share.T
        unsure = np.zeros(len(labels), bool)
        found, scores, slack = labels.copy(), self.scores.copy(), self.slack.copy()
        for span in spans(len(labels), self._height):
            about = self.products[span] @ weights
            bound = self._apart[span, None] * lengths + self.norms[span, None] * off
            stays = ~changed[labels[span]]
            out = np.outer(stays, ~changed)  # these were not nearer before, and are as they were
            low = np.where(out, -np.inf, about - bound).max(1)
            low = np.where(stays, np.maximum(low, scores[span] - slack[span]), low)
            near = (about + bound >= low[:, None]) & ~out
            count = near.sum(1)
            unsure[span] = np.where(stays, count > 0, count > 1)
            sure = np.flatnonzero(~stays & (count == 1))
            best = near[sure].argmax(1)
            at = sure + span.start
            found[at], scores[at], slack[at] = best, about[sure, best], bound[sure, best]
        self.spent += float(unsure.mean())
        if self.spent > SPENT:
            return None
        labels[:], self.scores, self.slack = found, scores, slack
        return unsure
