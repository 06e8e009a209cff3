"""Farthest-point sampling: again and again the row farthest from all that are picked."""

from __future__ import annotations

import numpy as np
import torch

from coincide_pl.progress import progress
from coincide_pl.selection.arrays.dtypes import Floats, Ints
from coincide_pl.selection.arrays.rows import Rows, spans

WIDTH = 256
"""Principal components that most pairs of rows are compared in."""
BATCH = 1024
"""Rows that are compared with all picks at a time."""
MARGIN = 1e-4
"""What squared distances in float32 may be off, as a share of the squared norms."""
FOR_COMPONENTS = 1024
"""Rows that the components are learned from."""
NUMBERS = 1 << 19
"""Numbers of the rows whose distances are taken in full width at a time: what a cache holds."""


def farthest_points(rows: Rows, count: int, seed: int = 0) -> Ints:
    """Greedily picks the row whose nearest pick is the farthest away.

    The first is the row of the largest norm; of equal distances the lower row is picked. Squared
    distances count rounded to float32, and so do not depend on the order in which sums are taken.

    A row's distance to its nearest pick only falls. So it is brought up to date only when the row
    is among the farthest, against the picks since the last time; most picks are ruled out by a
    lower bound of the distance: that in a few principal components, and in what of the rows' norms
    lies outside them. Memory is a kilobyte a row, time at most N count products of that width.

    Args:
        rows: [N, D].
        count: how many, at most N.
        seed: of the rows that the components are learned from; the picks do not depend on it.

    Returns:
        Rows int64 [count] in order of picking.
    """
    near = Narrow(rows, seed)
    norms = near.squares
    picks = np.empty(count, np.int64)
    if not count:
        return picks
    distances = np.full(len(rows), np.inf, np.float32)  # upper bounds until they are up to date
    seen = np.zeros(len(rows), np.int64)  # how many picks each row was compared with
    picks[0], done = int(np.argmax(norms)), 1
    distances[picks[0]] = -1
    with progress("farthest points", count) as advance:
        advance(1)
        while done < count:
            some, bound, first = _farthest(distances)
            block, before = near.whole(some), done
            near.update(some, block, picks[:done], distances, seen)
            own, bounds = distances[some], near.bounds(some, some)
            while done < count:
                best = int(own.argmax())  # `some` is ascending: of equals the lower row
                if own[best] < bound or (own[best] == bound and some[best] > first):
                    break  # a row outside may be farther
                picks[done] = some[best]
                done += 1
                own[best] = -1
                close = np.flatnonzero(bounds[best] < own)
                apart = squared(block, close, block, np.full(len(close), best))
                own[close] = np.minimum(own[close], apart)
            distances[some] = own
            # The picks of this round are known to these rows already.
            seen[some] = done
            advance(done - before)
    return picks


def _farthest(distances: Floats) -> tuple[Ints, float, int]:
    """The rows farthest away by their bounds, ascending; of the others, the largest and its row."""
    if len(distances) <= BATCH:
        return np.flatnonzero(distances >= 0), -1.0, 0
    cut = np.partition(distances, len(distances) - BATCH)[len(distances) - BATCH]
    above, level = np.flatnonzero(distances > cut), np.flatnonzero(distances == cut)
    taken = level[: BATCH - len(above)]
    some = np.sort(np.concatenate([above, taken]))
    some = some[distances[some] >= 0]
    left = distances.copy()
    left[some] = -1
    first = int(left.argmax())
    return some, float(left[first]), first


class Narrow:
    """Rows in a few principal components, with the norm of what lies outside: float32 [N, d + 1].

    Attributes:
        squares: float64 [N], squared norms of the rows as they are.
    """

    def __init__(self, rows: Rows, seed: int) -> None:
        """Reads all rows twice.

        Args:
            rows: [N, D].
            seed: of the rows that the components are learned from.
        """
        self.rows = rows
        mean, axes = components(rows, seed)
        self.inside = torch.empty(len(rows), axes.shape[1] + 1)
        self.squares = np.empty(len(rows))
        for span in rows.float_spans():
            block = torch.from_numpy(rows.floats(span, False))
            self.squares[span] = np.einsum("nd,nd->n", block, block, dtype=np.float64)
            block -= mean
            inside = block @ axes
            outside = (block.square().sum(1) - inside.square().sum(1)).clamp(min=0).sqrt()
            self.inside[span] = torch.cat([inside, outside[:, None]], 1)
        self.lengths = self.inside.double().square().sum(1).float()

    def whole(self, some: Ints) -> Floats:
        """Rows in full width, float32 [n, D]."""
        return self.rows.floats(some, False)

    def bounds(self, some: Ints, others: Ints) -> Floats:
        """Lower bounds of the squared distances of rows, float32 [some, others]."""
        lengths = self.lengths[some][:, None] + self.lengths[others]
        lengths *= 1 - MARGIN
        found: Floats = lengths.addmm_(self.inside[some], self.inside[others].T, alpha=-2).numpy()
        return found

    def update(self, some: Ints, block: Floats, picks: Ints, distances: Floats, seen: Ints) -> None:
        """Brings rows' distances to their nearest pick up to date, in place.

        Args:
            some: the rows.
            block: float32 [n, D], the same in full width.
            picks: all picks so far, in order.
            distances: float32 [N], squared.
            seen: int64 [N], how many picks each row was compared with.
        """
        begin = int(seen[some].min(initial=len(picks)))
        for span in spans(len(picks) - begin, BATCH):
            start, stop = span.start + begin, span.stop + begin
            behind = np.flatnonzero(seen[some] < stop)
            open_, others = some[behind], picks[start:stop]
            new = np.arange(start, stop) >= seen[open_][:, None]
            low = self.bounds(open_, others)
            row, other = np.nonzero((low < distances[open_][:, None]) & new)
            if len(row):
                used, place = np.unique(other, return_inverse=True)
                found = squared(block, behind[row], self.whole(others[used]), place)
                np.minimum.at(distances, open_[row], found)
        seen[some] = len(picks)


def components(rows: Rows, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The mean of some rows, float32 [D], and their principal components [D, d] of norm 1."""
    size = min(len(rows), FOR_COMPONENTS)
    sample = np.sort(np.random.default_rng(seed).choice(len(rows), size, replace=False))
    drawn = torch.from_numpy(rows.floats(sample, False, torch.float64))
    mean = drawn.mean(0)
    drawn -= mean
    _, vectors = torch.linalg.eigh(drawn @ drawn.T)  # [n, n], which is small whatever D is
    axes, _ = torch.linalg.qr(drawn.T @ vectors[:, -WIDTH:])  # at right angles also where rows lack
    return mean.float(), axes.float()


def squared(one: Floats, rows: Ints, other: Floats, places: Ints) -> Floats:
    """Squared distances of pairs of rows, summed in float64.

    Args:
        one: float32 [n, D].
        rows: int [p], which of them.
        other: float32 [m, D].
        places: int [p], which of these each is compared with.

    Returns:
        float32 [p].
    """
    found = np.empty(len(rows), np.float32)
    for part in spans(len(rows), max(1, NUMBERS // one.shape[1])):
        apart = one[rows[part]]
        apart -= other[places[part]]
        found[part] = np.einsum("nd,nd->n", apart, apart, dtype=np.float64)
    return found
