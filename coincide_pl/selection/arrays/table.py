"""What is known of the inner products of rows and centroids, so that few are computed again."""

from __future__ import annotations

import numpy as np
import torch

from coincide_pl.selection.arrays.dtypes import Bools, Floats, Ints
from coincide_pl.selection.arrays.exact import STEP
from coincide_pl.selection.arrays.parallel import over
from coincide_pl.selection.arrays.rows import spans

DIRECTIONS, MOST = 1e-3, 512
"""Smallest share of the largest eigenvalue with which a direction of the first centroids is kept,
and how many are at most."""
LEAST = 0.05
"""Share of a row's norm that counts as lying apart from the directions, at least."""
AT_ONCE = 1 << 18
"""Bounds that are computed together: what a cache holds."""


class Table:
    """Bounds of the inner products of rows x with centroids c that move.

    Let Q be orthonormal directions, those in which the first centroids lie, y = Q x and z = Q c.
    Then <x, c> = <y, z> + <x', c'> for the parts x' and c' that stand at right angles to Q. The
    first term takes few operations. The second is

    - at most ‖x'‖ ‖c'‖ (Cauchy-Schwarz),
    - within ‖x'‖ Σ ‖c'(t+1) - c'(t)‖ of what it was when <x, c> was last computed, where the sum
      goes over the rounds since then.

    Both hold for whatever number is stored as y, if x' is taken as x - Qᵀy, up to <Qx - y, z>; of
    that, and of the rounding of float32, the bounds are wide enough to be certain.

    Attributes:
        rest: float32 [n, K], the second term when it was last computed.
        travelled: float32 [n, K], the way that the centroid had gone by then.
        norms: float32 [n], of the rows.
        unit: float32 [K, d], the centroids now; None before the first.
    """

    def __init__(self, num_rows: int, num_clusters: int) -> None:
        """Makes room.

        Args:
            num_rows: n, of this process.
            num_clusters: K.
        """
        self.rest = np.empty((num_rows, num_clusters), np.float32)
        self.travelled = np.zeros((num_rows, num_clusters), np.float32)
        self.norms = np.zeros(num_rows, np.float32)
        self.unit: Floats | None = None

    def begin(self, unit: Floats, error: float) -> None:
        """Takes the first centroids, once `rest` holds the products with them, and norms are set.

        Args:
            unit: float32 [K, d].
            error: how much a product may be off, for a row of norm 1.
        """
        k, width = unit.shape
        self.unit = unit
        gram = np.zeros((k, k))
        for some in spans(width, 1024):
            wide = unit[:, some].astype(np.float64)
            gram += wide @ wide.T
        values, vectors = np.linalg.eigh(gram)
        used = values > DIRECTIONS * max(values[-1], 1e-30)
        used[:-MOST] = False
        turned = vectors[:, used] / np.sqrt(values[used])  # Q = turnedᵀ B for first centroids B
        self._turned = turned
        self._directions = np.empty((turned.shape[1], width))
        for some in spans(width, 1024):
            self._directions[:, some] = turned.T @ unit[:, some]
        self._error = error
        self._rounding = error + 2.04 * (len(turned.T) + 16) * STEP
        self._exact = gram @ turned
        self._places = self._exact.astype(np.float32)
        least = values[used].min(initial=1.0)
        off = error * np.sqrt(k / least) + 2 * STEP  # of ‖Qx - y‖, for a row of norm 1
        off_norms = width * STEP / 4  # of a squared norm, summed in float32
        self._coordinates = np.empty((len(self.norms), turned.shape[1]), np.float32)
        self._apart = np.empty_like(self.norms)
        for span in spans(len(self.norms), self._height):
            y = self._coordinates[span] = self.rest[span] @ turned
            norms = self.norms[span].astype(np.float64)
            inside = np.maximum(np.linalg.norm(y, axis=1) - off * norms, 0)
            left = np.square(norms) * (1 + off_norms + off**2) - np.square(inside)
            self._apart[span] = np.maximum(np.sqrt(np.maximum(left, 0)), LEAST * norms)
            self.rest[span] -= times(self._coordinates[span], self._places)
        self._travelled = np.zeros(k)
        self._lengths, self._off = np.empty((2, k))
        self._measure(np.arange(k), gram.diagonal())

    def move(self, unit: Floats) -> None:
        """Takes other centroids as those of now.

        Args:
            unit: float32 [K, d].
        """
        assert self.unit is not None
        old, self.unit = self.unit, unit
        moved = np.flatnonzero((unit != old).any(1))

        def move(span: slice) -> None:
            some = moved[span]
            exact, places, squares, gone = self._compare(unit[some], old[some])
            step = places - self._places[some]
            way = apart(gone, exact - self._exact[some], step) + self._blur(step) / LEAST
            self._travelled[some] = way + (1 + 1e-6) * self._travelled[some]
            self._exact[some], self._places[some] = exact, places
            self._measure(some, squares)

        for _ in over(spans(len(moved), 32), move):
            pass

    def _compare(self, unit: Floats, old: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Where centroids are, and how far from where they were.

        Returns:
            Inner products with the directions, float64 [k, m], the same rounded to float32, squared
            norms, float64 [k], and those of the differences from the old centroids.
        """
        exact = np.zeros((len(unit), len(self._directions)))
        squares, gone = np.zeros((2, len(unit)))
        for part in spans(unit.shape[1], 1024):
            wide = unit[:, part].astype(np.float64)
            directions = torch.from_numpy(self._directions[:, part])
            exact += (torch.from_numpy(wide) @ directions.T).numpy()
            squares += np.einsum("kd,kd->k", wide, wide)
            wide -= old[:, part]
            gone += np.einsum("kd,kd->k", wide, wide)
        return exact, exact.astype(np.float32).astype(np.float64), squares, gone

    def _measure(self, some: Ints, squares: Floats) -> None:
        """Lengths of what lies apart of some centroids, of whose norms these are the squares."""
        z = self._places[some].astype(np.float64)
        self._lengths[some] = apart(squares, self._exact[some], z)
        self._off[some] = self._blur(z)

    def _blur(self, places: Floats) -> Floats:
        """How much <Qx - y, z> may be for a row of norm 1."""
        rounded = 2 * STEP * np.linalg.norm(places, axis=1)
        off: Floats = self._error * np.abs(places @ self._turned.T).sum(1) + rounded
        return off

    def bounds(self, rows: slice | Ints) -> tuple[Floats, Floats]:
        """Lower and upper bounds of the products of rows with the centroids now, float32 [b, K].

        Args:
            rows: of this process, [b].
        """
        about = times(self._coordinates[rows], self._places)
        norms, length = self.norms[rows, None], self._apart[rows, None]
        known = about + self.rest[rows]
        far = self._travelled.astype(np.float32) - self.travelled[rows]
        far *= length
        far += norms * np.float32(self._rounding)
        wide = length * self._lengths.astype(np.float32)
        wide += norms * (self._off + self._rounding).astype(np.float32)
        low = np.maximum(known - far, about - wide)
        high = np.minimum(np.add(known, far, out=known), np.add(about, wide, out=about))
        return low, high

    def learn(self, rows: Ints, columns: Ints, products: Floats) -> None:
        """Takes products of rows with some centroids, just computed.

        Args:
            rows: int64 [b].
            columns: int64 [c].
            products: float32 [b, c].
        """
        place = np.ix_(rows, columns)
        self.rest[place] = products - times(self._coordinates[rows], self._places[columns])
        self.travelled[place] = self._travelled[columns].astype(np.float32)

    @property
    def _height(self) -> int:
        return max(1, AT_ONCE // self.rest.shape[1])

    def narrow(self, changed: Bools, labels: Ints) -> tuple[Bools, Ints]:
        """Gives rows whose nearest centroid is sure their labels, in place.

        Args:
            changed: bool [K], centroids that are others than when `labels` were found.
            labels: int64 [n], of the rows.

        Returns:
            Which rows are unsure, bool [n], and the centroid that comes next to the nearest for
            them, about, int64 [n].
        """
        unsure, second = np.zeros(len(labels), bool), labels.copy()

        def narrow(span: slice) -> None:
            low, high = self.bounds(span)
            here, own = np.arange(len(low)), labels[span]
            near = self.open(low, high, own, changed)
            count = near.sum(1)
            sure = np.flatnonzero(~near[here, own] & (count == 1))
            labels[sure + span.start] = near[sure].argmax(1)
            near[here, own] = False
            unsure[span] = (count > 1) & near.any(1)
            second[span] = np.where(near, high, -np.inf).argmax(1)

        for _ in over(spans(len(labels), self._height), narrow):
            pass
        return unsure, second

    @staticmethod
    def open(low: Floats, high: Floats, own: Ints, changed: Bools) -> Bools:
        """Which centroids may be nearest to rows, bool [b, K].

        Those that have not moved were no nearer than a row's own, and are not if that stays too.

        Args:
            low: float32 [b, K].
            high: float32 [b, K].
            own: int64 [b], labels so far.
            changed: bool [K].
        """
        here = np.arange(len(own))
        near: Bools = high >= low.max(1)[:, None]
        stays = ~changed[own]
        near[np.ix_(stays, ~changed)] = False
        near[here[stays], own[stays]] = True
        return near


def times(rows: Floats, others: Floats) -> Floats:
    """Inner products, float32 [b, k], by torch: numpy's own threads would disturb other blocks'."""
    found: Floats = (torch.from_numpy(rows) @ torch.from_numpy(others).T).numpy()
    return found


def apart(squares: Floats, products: Floats, places: Floats) -> Floats:
    """At least the lengths of v - Qᵀz, float64 [k], from ‖v‖² [k], Q v and z [k, m]."""
    rest = squares - 2 * (products * places).sum(1) + np.square(places).sum(1)
    length: Floats = np.sqrt(np.maximum(rest, 0)) + 1e-6  # more than float64 is off
    return length
