"""Which centroid is nearest to each row: in blocks, by several processes, and exactly."""

from __future__ import annotations

import functools
import itertools
import time
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch

from coincide_pl.processes import gathered, group_size, refuse, summed
from coincide_pl.selection.arrays.exact import STEP, rounded_unit
from coincide_pl.selection.arrays.rows import Rows

EXACT_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Entries of pairs multiplied exactly at once: what a cache holds, or what keeps a GPU busy."""
MANY = 2048
"""Centroids from which bfloat16 pays: its products leave more rows to be decided exactly."""


class Keeper(Protocol):
    """Where an interrupted selection leaves its state, and finds it again."""

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """What was saved under a name, if anything."""

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keep arrays under a name; what was there is replaced."""


@dataclass(frozen=True)
class Setting:
    """What every step of a clustering needs to know."""

    num_iterations: int
    seed: int
    memory: int
    device: torch.device
    keeper: Keeper | None = None


class Assigner:
    """What Faiss's Lloyd loop asks of a data set, over rows that are read in blocks.

    A row is compared with all centroids only when its own has moved since the last time; otherwise
    with those that have, as no other can be nearer now. The sums of each cluster's rows are kept,
    and only rows that change their cluster are taken from one and added to the other; being exact,
    they are what a sum from the start would be.

    Attributes:
        centroids: [K, d], from which the next iteration starts.
        labels: int64 [n], each row's nearest centroid at the last assignment; -1 before the first.
        moved: rows that the last assignment gave to another centroid.
    """

    def __init__(self, rows: Rows, num_clusters: int, setting: Setting, sums: bool = True) -> None:
        """Reads nothing yet.

        Args:
            rows: to cluster.
            num_clusters: K.
            setting: memory and device are used.
            sums: whether sums are wanted.
        """
        self.rows, self.setting = rows, setting
        self.ranks, self.rank = group_size()
        n = len(rows)
        self.bounds = [n * i // self.ranks for i in range(self.ranks + 1)]
        self.own = slice(self.bounds[self.rank], self.bounds[self.rank + 1])
        self.labels = np.full(n, -1, np.int64)
        self.scores = np.full(n, -np.inf, np.float32)
        self.norms = np.full(n, np.nan, np.float32)
        self.sums = np.zeros((num_clusters, rows.width)) if sums else None
        self.unit = np.full((num_clusters, rows.width), np.nan, np.float32)
        self.moved = n
        self.dtype = fastest(setting.device) if num_clusters >= MANY else torch.float32

    def count(self) -> int:
        """Rows."""
        return len(self.rows)

    def dim(self) -> int:
        """Columns."""
        return self.rows.width

    def get_subset(self, indices: np.ndarray) -> np.ndarray:
        """The centroids to start from; Faiss would take rows at random."""
        return self.centroids

    centroids: np.ndarray

    def assign_to(
        self, centroids: np.ndarray, weights: None = None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Each row's nearest centroid, int64 [n], about its cosine, and the sums of rows [K, d]."""
        unit = unit_centroids(centroids)
        changed = (unit != self.unit).any(1)
        if not changed.any():
            self.moved = 0
            return self.labels, self.scores, self.sums
        self.unit = unit
        every = Nearest(unit, np.arange(len(unit)), self.dtype, self.setting.device)
        some = Nearest(unit, np.flatnonzero(changed), self.dtype, self.setting.device)
        sums = self.sums
        if self.ranks > 1 and sums is not None:
            sums = np.zeros_like(sums)
        moved, bad = 0, -1
        height = self._height(len(unit))
        share = np.arange(self.own.start, self.own.stop)
        groups = (share[i : i + height] for i in range(0, len(share), height))
        starts = range(self.own.start, self.own.stop, height)
        for start, block in zip(starts, self.rows.gathers(groups), strict=True):
            span = slice(start, start + len(block))
            old = self.labels[span].copy()
            if (old < 0).any():
                bad = max(bad, zero_unless_finite(block, self.rows, start))
            norms = self._norms(block, start)
            lost = changed[old] | (old < 0)
            for near, those in ((every, lost), (some, ~lost)):
                if those.any():
                    at = np.flatnonzero(those) + start
                    own = None if near is every else (self.labels[at], self.scores[at])
                    found = near(take(block, those), norms[those], own)
                    self.labels[at], self.scores[at] = found
            new = self.labels[span]
            moved += int((new != old).sum())
            if sums is not None:
                shift(sums, block, old, new)
        refuse(bad)
        self._exchange(sums)
        self.moved = int(summed(np.array([moved], np.float64))[0])
        return self.labels, self.scores, self.sums

    def _norms(self, block: np.ndarray, start: int) -> np.ndarray:
        span = slice(start, start + len(block))
        if np.isnan(self.norms[span]).any():
            self.norms[span] = torch.from_numpy(block).float().norm(dim=1).numpy()
        return self.norms[span]

    def _height(self, num_clusters: int) -> int:
        row = 2 * self.rows.row_bytes + 16 * self.rows.width + 8 * num_clusters
        return max(1, min(65536, self.setting.memory // 2 // row))

    def _exchange(self, sums: np.ndarray | None) -> None:
        """Give every process all labels, scores and sums."""
        if self.ranks == 1:
            return
        if self.sums is not None and sums is not None:
            self.sums += summed(sums)
        for array in (self.labels, self.scores):
            parts = [array[a:b] for a, b in itertools.pairwise(self.bounds)]
            array[:] = np.concatenate(gathered(parts, self.rank))


class Nearest:
    """The nearest of some centroids: fast products narrow the choice, exact ones decide.

    An inner product of vectors of norm 1 in float32 is off by at most d 2^-24, in whatever order it
    is summed; rounding both vectors to bfloat16, and the result, adds 2^-9 each. Centroids within
    twice that of the best are compared by their exact inner products.
    """

    def __init__(
        self, unit: np.ndarray, numbers: np.ndarray, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Moves the centroids to where they are needed.

        Args:
            unit: float32 [K, d], all centroids.
            numbers: int64 [k], ascending, those compared.
            dtype: of the fast products.
            device: of the fast products.
        """
        self.numbers, self.dtype, self.device = numbers, dtype, device
        self.unit = torch.from_numpy(unit).to(device)
        compared = self.unit if len(numbers) == len(unit) else self.unit[numbers]
        self.near = compared.to(dtype)
        self.rounding = STEP if dtype == torch.float32 else 2.0**-9
        self.error = 1.02 * unit.shape[1] * STEP + 3.1 * self.rounding

    def __call__(
        self,
        block: np.ndarray,
        norms: np.ndarray,
        own: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Nearest centroids of some rows.

        Args:
            block: [b, d].
            norms: float32 [b], of the rows.
            own: for rows that have a centroid beside these, its number int64 [b] and about its
                inner product float32 [b].

        Returns:
            Numbers int64 [b], and about the inner products float32 [b].
        """
        rows = torch.from_numpy(block).to(self.device)
        error = self.error * torch.from_numpy(norms).to(self.device)
        products = rows.to(self.dtype) @ self.near.T  # [b, k]
        best = products.amax(1).float()
        least = best
        if own is not None:
            least = least.maximum(torch.from_numpy(own[1]).to(self.device))
        least = least - 2 * error
        least = (least - 2 * self.rounding * least.abs()).to(products.dtype)  # never rounded up
        flat = nonzeros(products >= least[:, None])
        row, which = flat // products.shape[1], flat % products.shape[1]
        number, choices = self.numbers[which], np.bincount(row, minlength=len(block))
        if own is None:
            labels, scores = np.empty(len(block), np.int64), best.cpu().numpy()
            clear = choices[row] == 1
            labels[row[clear]] = number[clear]
            row, number, which = row[~clear], number[~clear], which[~clear]
        else:
            labels, scores = own[0].copy(), own[1].copy()
        if len(row):
            place = torch.from_numpy(row).to(self.device), torch.from_numpy(which).to(self.device)
            about = products[place].float().cpu().numpy()
            if own is not None:
                again = np.flatnonzero(choices)
                row, number = np.append(row, again), np.append(number, own[0][again])
                about = np.append(about, own[1][again])
            order = np.lexsort((number, -self._exact(rows, row, number), row))
            first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
            labels[row[first]], scores[row[first]] = number[first], about[first]
        return labels, scores

    def _exact(self, rows: torch.Tensor, pair_rows: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """Inner products of pairs, float64."""
        out = torch.empty(len(pair_rows), dtype=torch.float64, device=self.device)
        first, second = torch.from_numpy(pair_rows), torch.from_numpy(numbers)
        step = max(1, EXACT_AT_ONCE[self.device.type] // rows.shape[1])
        for start in range(0, len(out), step):
            span = slice(start, start + step)
            one = rows[first[span].to(self.device)].double()
            out[span] = one.mul_(self.unit[second[span].to(self.device)]).sum(1)
        return out.cpu().numpy()


def unit_centroids(centroids: np.ndarray) -> np.ndarray:
    """Rows of norm 1 (zero stays zero), float32, exactly multiples of 2^-24."""
    unit = np.empty(centroids.shape, np.float32)
    for start in range(0, len(unit), 256):
        some = torch.from_numpy(centroids[start : start + 256])
        unit[start : start + 256] = rounded_unit(some).numpy()
    return unit


def shift(sums: np.ndarray, block: np.ndarray, old: np.ndarray, new: np.ndarray) -> None:
    """Take rows from the sums of their old clusters (-1: none) and add them to their new ones."""
    total = torch.from_numpy(sums)
    moved = np.flatnonzero(old != new)
    for start in range(0, len(moved), 256):
        some = moved[start : start + 256]
        wide = torch.from_numpy(block[some]).double()
        total.index_add_(0, torch.from_numpy(new[some]), wide)
        had = np.flatnonzero(old[some] >= 0)
        if len(had):
            total.index_add_(0, torch.from_numpy(old[some][had]), wide[had], alpha=-1)


def zero_unless_finite(block: np.ndarray, rows: Rows, start: int) -> int:
    """Set rows with NaN or infinity to zero; the number of the last one's record, or -1."""
    if torch.isfinite(torch.from_numpy(block).sum(dtype=torch.float64)):
        return -1
    bad = np.flatnonzero(~np.isfinite(block).all(1))
    block[bad] = 0
    row = start + int(bad[-1])
    return row if rows.chosen is None else int(rows.chosen[row])


def nonzeros(mask: torch.Tensor) -> np.ndarray:
    """Flat places of what is true, ascending."""
    if mask.device.type == "cpu":
        return np.flatnonzero(mask.numpy())
    return mask.flatten().nonzero()[:, 0].cpu().numpy()


def take(block: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Some rows of a block, without a copy where it is all."""
    return block if mask.all() else block[mask]


@functools.cache
def fastest(device: torch.device) -> torch.dtype:
    """The faster precision for products here; which it is does not change the clusters."""
    if device.type == "cuda":
        return torch.bfloat16
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        square = torch.ones(768, 768, dtype=dtype)
        square @ square
        begin = time.perf_counter()
        square @ square
        seconds[dtype] = time.perf_counter() - begin
    return min(seconds, key=seconds.__getitem__)
