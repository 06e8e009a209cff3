"""The Gaussian kernel inside a cluster, whole or in pieces.

Features are float16 of norm at most 1, so products of two entries are multiples of 2^-48, and every
sum of them fits a float64 without rounding: inner products and distances are exact, in whatever
order, on however many threads, and on a GPU. What follows is elementwise, or summed row by row in
one order. So the picks depend neither on how the work is cut nor on who does it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Protocol

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Array, ArrayLike, Floats, Ints
from coincide_pl.selection.arrays.rows import MEMORY, Rows, spans

COLUMNS = 4096
"""Columns multiplied at once: what is held as float64."""


class Cluster(Protocol):
    """What density and picks ask of a cluster of n samples."""

    @property
    def means(self) -> Floats:
        """Mean kernel of each sample with all, float64 [n]."""

    @property
    def others(self) -> Floats:
        """Sum of the kernel of each sample with the others, float64 [n]."""

    def __len__(self) -> int:
        """How many samples."""

    def greedy(self, count: int) -> Ints:
        """The first `count` samples in order of picking, int64."""


class Kernel:
    """The kernel of one cluster with itself, whole where it fits in memory, else in pieces."""

    def __init__(
        self,
        rows: Rows,
        bandwidth: float,
        memory: int = MEMORY,
        device: str | torch.device = "cpu",
        loaded: Array | None = None,
    ) -> None:
        """Computes the whole kernel, if it fits.

        Args:
            rows: the cluster, n rows.
            bandwidth: σ.
            memory: bytes of rows and kernel held at once.
            device: where rows are multiplied.
            loaded: the rows, if they have been read already.
        """
        self.rows, self.bandwidth, self.memory, self.device = rows, bandwidth, memory, device
        self.n = n = len(rows)
        self.height = max(1, min(n, memory // 4 // max(8 * n, rows.row_bytes)))
        self.whole: Floats | None = None
        if fits(n, rows.row_bytes, memory):
            if loaded is None:
                loaded = rows.block(0, n)
            gram = self._gram(loaded, loaded)
            self.squares = gram.diagonal().copy()
            self.whole = self._gaussian(self.squares, gram)
        else:
            self.squares = np.concatenate([squares(x) for _, x in rows.blocks(self.height)])
        if not np.isfinite(self.squares).all():
            bad = rows.number(int(np.argmin(np.isfinite(self.squares))))
            raise SelectionError(f"the features of record {bad} hold NaN or infinity")

    def __len__(self) -> int:
        return self.n

    @property
    def means(self) -> Floats:
        """Mean kernel of each row with all rows, float64 [n]."""
        return self.sums[0] / self.n

    @property
    def others(self) -> Floats:
        """Sum of the kernel of each row with the others, float64 [n].

        No difference to the sum with all: beside a row's own 1, what is small would be lost.
        """
        return self.sums[1]

    @cached_property
    def sums(self) -> tuple[Floats, Floats]:
        """Sums of the kernel of each row with all rows, and with the others, float64 [n]."""
        every, others = np.empty(self.n), np.empty(self.n)
        for span, part in self._spans():
            rows = np.arange(span.start, span.stop)
            every[span] = part.sum(1)
            own = part[rows - span.start, rows]
            part[rows - span.start, rows] = 0
            others[span] = part.sum(1)
            part[rows - span.start, rows] = own
        return every, others

    def _spans(self) -> Iterator[tuple[slice, Floats]]:
        """The kernel of some rows after the other with all rows, float64 [b, n]."""
        for span in spans(self.n, self.height if self.whole is None else max(1, self.n)):
            rows = np.arange(span.start, span.stop)
            yield span, self._some(rows) if self.whole is None else self.whole

    def distinct(self, steps: int) -> Floats:
        """Effective numbers of distinct rows, V(h) = Σ_x 1 / Σ_y k_h(x, y), of narrower kernels.

        A Gaussian kernel that is √2 times narrower is the square of the wider one.

        Args:
            steps: how many bandwidths.

        Returns:
            float64 [steps], of h = σ, σ / √2, σ / 2, and so on; from 1, where all rows count as the
            same, to n, where none does.
        """
        sums = np.empty((steps, self.n))
        for span, part in self._spans():
            narrower = part.copy()
            for step in range(steps):
                sums[step, span] = narrower.sum(1)
                np.square(narrower, out=narrower)
        totals: Floats = (1 / sums).sum(1)
        return totals

    @property
    def flattened(self) -> Floats:
        """Mean kernel of each row with all, each of these weighted by 1 / Σ_y k(x, y), float64 [n].

        So many rows alike count as one.
        """
        weights = 1 / self.sums[0]
        weights /= weights.sum()
        means = np.empty(self.n)
        for span, part in self._spans():
            means[span] = (part * weights).sum(1)
        return means

    def greedy(self, count: int, means: Floats | None = None) -> Ints:
        """The first `count` picks, int64.

        With g(c) = Σ_{p in P} k(p, c) and r(c) = mean_x k(x, c), the candidate c adds
        (2 g(c) + k(c, c)) / m² - 2 r(c) / m at step m. As k(c, c) = 1 for all, the smallest
        g(c) - m r(c) is picked: one running sum, O(n) a pick.

        Args:
            count: how many.
            means: r, float64 [n], where it is known already.
        """
        means = self.means if means is None else means
        near = np.zeros(self.n)  # g; infinite at what is picked
        score, picks = np.empty(self.n), np.empty(count, np.int64)
        row = self._whole_row() if self.whole is not None else self._ahead()
        for m in range(1, count + 1):
            np.multiply(means, m, out=score)
            np.subtract(near, score, out=score)
            best = int(score.argmin())
            picks[m - 1] = best
            near += row(best, score)
            near[best] = np.inf
        return picks

    def _whole_row(self) -> Callable[[int, Floats], Floats]:
        whole = self.whole
        assert whole is not None
        return lambda best, score: whole[best]

    def _ahead(self) -> Callable[[int, Floats], Floats]:
        """Kernel rows of the best candidates, computed together: the next picks are among them."""
        kept: dict[int, Floats] = {}

        def row(best: int, score: Floats) -> Floats:
            if best not in kept:
                likely = np.argpartition(score, self.height - 1)[: self.height]
                likely = np.unique(np.append(likely[np.isfinite(score[likely])], best))
                kept.clear()
                kept.update(zip(likely.tolist(), self._some(likely), strict=True))
            return kept[best]

        return row

    def _some(self, some: Ints) -> Floats:
        """Kernel of some rows (ascending) with all, float64 [b, n]."""
        left = self.rows.gather(some)
        out = np.empty((len(some), self.n))
        for span, right in self.rows.blocks(self.height):
            out[:, span] = self._gram(left, right)
        return self._gaussian(self.squares[some], out)

    def _gram(self, left: Array, right: Array) -> Floats:
        """Inner products, float64 [a, b]."""
        same = right is left
        a = torch.from_numpy(left).to(self.device)
        b = a if same else torch.from_numpy(right).to(self.device)
        total = torch.zeros(len(a), len(b), dtype=torch.float64, device=self.device)
        for start in range(0, a.shape[1], COLUMNS):
            one = a[:, start : start + COLUMNS].double()
            total.addmm_(one, (one if same else b[:, start : start + COLUMNS].double()).T)
        products: Floats = total.cpu().numpy()
        return products

    def _gaussian(self, own: Floats, gram: Floats) -> Floats:
        """exp(-(‖x‖² + ‖y‖² - 2 x·y) / (2 σ²)), in place of the inner products."""
        gram *= 2.0
        np.subtract(own[:, None], gram, out=gram)
        gram += self.squares[None, :]
        gram /= -2 * self.bandwidth**2
        np.exp(gram, out=gram)
        return gram


def fits(n: int, row_bytes: int, memory: int) -> bool:
    """Whether a cluster's rows and whole kernel fit in memory together."""
    return 2 * 8 * n * n + n * row_bytes <= memory // 2


def squares(rows: Array) -> Floats:
    """‖x‖² of each row, float64 [n]."""
    sums: Floats = torch.from_numpy(rows).double().square_().sum(1).numpy()
    return sums


def members(labels: ArrayLike, num_clusters: int = 0) -> list[Ints]:
    """The rows of each cluster, ascending, for labels 0 to max, or to `num_clusters` - 1."""
    array = np.asarray(labels)
    if not len(array):
        return [np.zeros(0, np.int64)] * num_clusters
    order = np.argsort(array, kind="stable")
    return np.split(order, np.cumsum(np.bincount(array, minlength=num_clusters))[:-1])
