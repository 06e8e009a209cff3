"""Which centroid is nearest to each row, exactly: fast products narrow the choice."""

from __future__ import annotations

import functools
import time

import numpy as np
import torch

from coincide_pl.selection.arrays.dtypes import Array, Bools, Floats, Ints
from coincide_pl.selection.arrays.exact import CACHED, STEP
from coincide_pl.selection.arrays.rows import spans

EXACT_AT_ONCE = {"cpu": 1 << 18, "cuda": 1 << 26}
"""Entries of pairs multiplied exactly at once: what a cache holds, or what keeps a GPU busy."""
COLUMNS = 1024
"""Columns whose products are summed before they are added to the others': fewer are more exact."""
MANY = 2048
"""Centroids from which bfloat16 pays: its products leave more rows to be decided exactly."""


class Nearest:
    """The nearest of some centroids: fast products narrow the choice, exact ones decide.

    An inner product of vectors of norm 1 in float32 is off by at most d 2^-24, in whatever order it
    is summed, and by less if it is summed in stretches of columns; rounding both vectors to
    bfloat16, and the result, adds 2^-9 each. Centroids within twice that of the best are compared
    by their exact inner products.
    """

    def __init__(
        self, unit: Floats, numbers: Ints, dtype: torch.dtype, device: torch.device
    ) -> None:
        """Moves the centroids to the device and the precision of the fast products.

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
        width = unit.shape[1]
        summed = width if dtype != torch.float32 else min(width, COLUMNS) + width // COLUMNS + 1
        self.error = 1.02 * summed * STEP + 3.1 * self.rounding

    def __call__(
        self,
        block: Array,
        norms: Floats,
        own: tuple[Ints, Floats] | None = None,
        products: torch.Tensor | None = None,
    ) -> tuple[Ints, Floats]:
        """The nearest centroid of each of some rows.

        Args:
            block: [b, d].
            norms: float32 [b], of the rows.
            own: for rows that have a centroid beside these, its number int64 [b] and about its
                inner product float32 [b].
            products: what `products` gives for the block, if it was asked already.

        Returns:
            Numbers int64 [b], and about the inner products float32 [b].
        """
        rows = torch.from_numpy(block).to(self.device)
        error = self.error * torch.from_numpy(norms).to(self.device)
        products = self.products(rows) if products is None else products  # [b, k]
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
            labels: Ints = np.empty(len(block), np.int64)
            scores: Floats = best.cpu().numpy()
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

    def improved(self, block: Array, norms: Floats, scores: Floats) -> tuple[Ints, Ints, Floats]:
        """Rows that have a centroid here as near as the one that they have elsewhere, or nearer.

        Args:
            block: [b, d].
            norms: float32 [b], of the rows.
            scores: float64 [b], each row's exact inner product with its centroid elsewhere; -inf
                for none.

        Returns:
            The rows, int64 [m]; for each the number of the nearest centroid here, the first of
            equals, and their exact inner product, float64 [m].
        """
        rows = torch.from_numpy(block).to(self.device)
        error = self.error * torch.from_numpy(norms).to(self.device)
        products = self.products(rows)
        floor = torch.from_numpy(scores).to(self.device).float()
        least = (products.amax(1).float() - 2 * error).maximum(floor - error - STEP)
        least = (least - 2 * self.rounding * least.abs()).to(products.dtype)  # never rounded up
        flat = nonzeros(products >= least[:, None])
        row, number = flat // products.shape[1], self.numbers[flat % products.shape[1]]
        exact = self._exact(rows, row, number)
        order = np.lexsort((number, -exact, row))
        first = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
        first = first[exact[first] >= scores[row[first]]]
        return row[first], number[first], exact[first]

    def products(self, rows: torch.Tensor) -> torch.Tensor:
        """Fast inner products of rows [b, d] with the centroids, [b, k]."""
        if self.dtype != torch.float32:
            return rows.to(self.dtype) @ self.near.T
        total = torch.empty(len(rows), len(self.near), device=self.device)
        for part in spans(len(rows), max(64, 4 * CACHED // max(1, rows.shape[1]))):
            total[part] = in_stretches(rows[part].float(), self.near)
        return total

    def _exact(self, rows: torch.Tensor, pair_rows: Ints, numbers: Ints) -> Floats:
        """Inner products of pairs, float64."""
        out = torch.empty(len(pair_rows), dtype=torch.float64, device=self.device)
        first, second = torch.from_numpy(pair_rows), torch.from_numpy(numbers)
        step = max(1, EXACT_AT_ONCE[self.device.type] // rows.shape[1])
        for start in range(0, len(out), step):
            span = slice(start, start + step)
            one = rows[first[span].to(self.device)].double()
            out[span] = one.mul_(self.unit[second[span].to(self.device)]).sum(1)
        products: Floats = out.cpu().numpy()
        return products


def in_stretches(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
    """Inner products of float32 rows [b, d] and [k, d], summed in stretches of columns, [b, k]."""
    whole = rows.shape[1] // COLUMNS * COLUMNS
    total = rows[:, whole:] @ centroids[:, whole:].T
    if whole:
        first = rows[:, :whole].unflatten(1, (-1, COLUMNS)).transpose(0, 1)
        second = centroids[:, :whole].unflatten(1, (-1, COLUMNS)).permute(1, 2, 0)
        total += torch.bmm(first, second).sum(0)
    return total


def nonzeros(mask: torch.Tensor) -> Ints:
    """Flat places of what is true, ascending."""
    if mask.device.type == "cpu":
        return np.flatnonzero(mask.numpy())
    places: Ints = mask.flatten().nonzero()[:, 0].cpu().numpy()
    return places


def take(block: Array, mask: Bools) -> Array:
    """The rows of a block that a mask names, without a copy where it names all."""
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
