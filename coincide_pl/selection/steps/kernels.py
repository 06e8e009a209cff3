"""The Gaussian kernel inside a cluster: its density, and picks that keep its distribution.

Features are float16 of norm at most 1, so products of two entries are multiples of 2^-48, and every
sum of them fits a float64 without rounding: inner products and distances are exact, in whatever
order, on however many threads, and on a GPU. What follows is elementwise, or summed row by row in
one order. So the picks depend neither on how the work is cut nor on who does it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.rows import Rows

MEMORY = 1 << 30
"""Bytes for rows and kernels held at once."""
COLUMNS = 4096
"""Columns multiplied at once: what is held as float64."""


def density(
    features: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    bandwidth: float = 1.0,
    include_self: bool = True,
    memory: int = MEMORY,
) -> np.ndarray | Tensor:
    """D_i: the mean Gaussian kernel over all pairs of a cluster.

    k(x, y) = exp(-‖x - y‖² / (2 σ²)), in float64.

    Args:
        features: [N, D], any float dtype, also memory-mapped.
        labels: int [N], 0 to K - 1.
        bandwidth: σ.
        include_self: whether pairs of a sample with itself count, as in the authors' code; in the
            paper's sum they do not (a cluster of one then has density 1).
        memory: bytes of rows and kernel held at once.

    Returns:
        float64 [K], 0 for an empty cluster; of the kind of `features`.
    """
    check_bandwidth(bandwidth)
    rows = Rows(features)
    means = [
        mean_density(Kernel(rows.subset(group), bandwidth, memory).means(), include_self)
        for group in members(labels)
    ]
    return np.array(means) if isinstance(features, np.ndarray) else torch.tensor(means).double()


def greedy_mmd(
    features: np.ndarray | Tensor, count: int, bandwidth: float = 1.0, memory: int = MEMORY
) -> np.ndarray | Tensor:
    """Greedily pick the samples whose kernel mean stays nearest to the cluster's.

    Each step adds the sample that makes MMD² = mean k(C, C) + mean k(P, P) - 2 mean k(C, P) of the
    picks P smallest; of equals the first.

    Args:
        features: [n, D], one cluster.
        count: how many, at most n. Fewer are the first of more.
        bandwidth: σ.
        memory: bytes of rows and kernel held at once.

    Returns:
        int64 [count] in order of picking, of the kind of `features`.

    Raises:
        SelectionError: more are asked for than there are.
    """
    check_bandwidth(bandwidth)
    if not 0 <= count <= len(features):
        raise SelectionError(f"can't pick {count} of {len(features)} samples")
    kernel = Kernel(Rows(features), bandwidth, memory)
    picks = kernel.greedy(count, kernel.means())
    return picks if isinstance(features, np.ndarray) else torch.from_numpy(picks)


def mean_density(means: np.ndarray, include_self: bool) -> float:
    """D of a cluster from the mean kernel of each member with all, float64 [n]; 0 if empty."""
    n = len(means)
    if include_self or not n:
        return float(means.sum() / max(n, 1))
    return float((means.sum() * n - n) / (n * (n - 1))) if n > 1 else 1.0


class Kernel:
    """The kernel of one cluster with itself, whole where it fits in memory, else in pieces."""

    def __init__(
        self,
        rows: Rows,
        bandwidth: float,
        memory: int,
        device: str | torch.device = "cpu",
        loaded: np.ndarray | None = None,
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
        self.whole: np.ndarray | None = None
        if fits(n, rows.row_bytes, memory):
            if loaded is None:
                loaded = rows.block(0, n)
            gram = self._gram(loaded, loaded)
            self.squares = gram.diagonal().copy()
            self.whole = self._gaussian(self.squares, gram)
        else:
            self.squares = np.concatenate([squares(x) for _, x in rows.blocks(self.height)])

    def means(self) -> np.ndarray:
        """Mean kernel of each row with all rows, float64 [n]."""
        if self.whole is not None:
            return self.whole.sum(1) / self.n
        blocks = (np.arange(i, min(i + self.height, self.n)) for i in self._starts())
        return np.concatenate([self._some(block).sum(1) / self.n for block in blocks])

    def greedy(self, count: int, means: np.ndarray) -> np.ndarray:
        """The first `count` picks, int64.

        With g(c) = Σ_{p in P} k(p, c) and r(c) = mean_x k(x, c), the candidate c adds
        (2 g(c) + k(c, c)) / m² - 2 r(c) / m at step m. As k(c, c) = 1 for all, the smallest
        g(c) - m r(c) is picked: one running sum, O(n) a pick.

        Args:
            count: how many.
            means: r, from `means`.
        """
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

    def _whole_row(self) -> Callable[[int, np.ndarray], np.ndarray]:
        whole = self.whole
        assert whole is not None
        return lambda best, score: whole[best]

    def _ahead(self) -> Callable[[int, np.ndarray], np.ndarray]:
        """Kernel rows of the best candidates, computed together: the next picks are among them."""
        kept: dict[int, np.ndarray] = {}

        def row(best: int, score: np.ndarray) -> np.ndarray:
            if best not in kept:
                likely = np.argpartition(score, self.height - 1)[: self.height]
                likely = np.unique(np.append(likely[np.isfinite(score[likely])], best))
                kept.clear()
                kept.update(zip(likely.tolist(), self._some(likely), strict=True))
            return kept[best]

        return row

    def _some(self, picked: np.ndarray) -> np.ndarray:
        """Kernel of some rows (ascending) with all, float64 [b, n]."""
        left = self.rows.gather(picked)
        out = np.empty((len(picked), self.n))
        for span, right in self.rows.blocks(self.height):
            out[:, span] = self._gram(left, right)
        return self._gaussian(self.squares[picked], out)

    def _starts(self) -> range:
        return range(0, self.n, self.height)

    def _gram(self, left: np.ndarray, right: np.ndarray) -> np.ndarray:
        """Inner products, float64 [a, b]."""
        same = right is left
        a = torch.from_numpy(left).to(self.device)
        b = a if same else torch.from_numpy(right).to(self.device)
        total = torch.zeros(len(a), len(b), dtype=torch.float64, device=self.device)
        for start in range(0, a.shape[1], COLUMNS):
            one = a[:, start : start + COLUMNS].double()
            total.addmm_(one, (one if same else b[:, start : start + COLUMNS].double()).T)
        return total.cpu().numpy()

    def _gaussian(self, own: np.ndarray, gram: np.ndarray) -> np.ndarray:
        """exp(-(‖x‖² + ‖y‖² - 2 x·y) / (2 σ²)), in place of the inner products."""
        gram *= 2.0
        np.subtract(own[:, None], gram, out=gram)
        gram += self.squares[None, :]
        gram /= -2 * self.bandwidth**2
        return np.exp(gram, out=gram)


def fits(n: int, row_bytes: int, memory: int) -> bool:
    """Whether a cluster's rows and whole kernel fit in memory together."""
    return 2 * 8 * n * n + n * row_bytes <= memory // 2


def squares(rows: np.ndarray) -> np.ndarray:
    """‖x‖² of each row, float64 [n]."""
    return torch.from_numpy(rows).double().square_().sum(1).numpy()


def members(labels: np.ndarray | Tensor, num_clusters: int = 0) -> list[np.ndarray]:
    """The rows of each cluster, ascending, for labels 0 to max, or to `num_clusters` - 1."""
    array = np.asarray(labels)
    order = np.argsort(array, kind="stable")
    return np.split(order, np.cumsum(np.bincount(array, minlength=num_clusters))[:-1])


def check_bandwidth(bandwidth: float) -> None:
    """Refuse a bandwidth that is no positive number."""
    if not 0 < bandwidth < float("inf"):
        raise SelectionError(f"bandwidth: {bandwidth} must be a positive number")
