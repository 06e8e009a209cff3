"""Ward's clustering: the two clusters are merged whose union widens least, cut at a height."""

from __future__ import annotations

import numpy as np

from coincide_pl.selection.arrays.dtypes import Floats, Ints
from coincide_pl.selection.arrays.rows import spans


def ward_labels(rows: Floats, cut: float) -> Ints:
    """Clusters of the merges that are no higher than a share of the highest merge.

    Args:
        rows: float64 [n, D], compared by Euclidean distance; n × n distances are held.
        cut: share of the highest merge, in [0, 1].

    Returns:
        int64 [n], 0 to K - 1, in the order in which clusters begin.
    """
    norms = np.einsum("nd,nd->n", rows, rows)
    squares = rows @ rows.T  # exactly symmetric
    squares *= -2
    for span in spans(len(rows), 1024):
        squares[span] += norms[span, None] + norms
    left, right, heights = merges(np.maximum(squares, 0, out=squares))
    owner = np.arange(len(rows))

    def root(row: int) -> int:
        while owner[row] != row:
            owner[row] = owner[owner[row]]
            row = int(owner[row])
        return row

    for a, b, height in zip(left.tolist(), right.tolist(), heights.tolist(), strict=True):
        if height <= cut * heights.max():
            one, other = sorted((root(a), root(b)))
            owner[other] = one
    roots = np.array([root(row) for row in range(len(rows))])
    return np.unique(roots, return_inverse=True)[1].astype(np.int64)


def merges(squares: Floats) -> tuple[Ints, Ints, Floats]:
    """All n - 1 merges of Ward's clustering, found by chains of nearest neighbors (Murtagh, 1983).

    The height of a merge is √(2 n_a n_b / (n_a + n_b)) ‖c_a - c_b‖, for one row each their
    distance, as in SciPy.

    Args:
        squares: float64 [n, n], squared distances; it is overwritten.

    Returns:
        A row of each of the two clusters that are merged, int64 [n - 1] each, and heights float64
        [n - 1], in the order in which chains find them.
    """
    n = len(squares)
    np.fill_diagonal(squares, np.inf)
    sizes, alive = np.ones(n), np.ones(n, bool)
    left, right = np.empty(n - 1, np.int64), np.empty(n - 1, np.int64)
    heights = np.empty(n - 1)
    chain: list[int] = []
    for merge in range(n - 1):
        if not chain:
            chain.append(int(alive.argmax()))
        while True:
            a = chain[-1]
            b = int(squares[a].argmin())
            if len(chain) > 1 and squares[a, chain[-2]] <= squares[a, b]:
                b = chain[-2]
                break
            chain.append(b)
        del chain[-2:]
        square = squares[a, b]
        left[merge], right[merge], heights[merge] = a, b, np.sqrt(square)
        # Lance and Williams: the squared height of b, now a and b together, with each other.
        near = (sizes[a] + sizes) * squares[a] + (sizes[b] + sizes) * squares[b] - sizes * square
        near /= sizes[a] + sizes[b] + sizes
        near[[a, b]] = np.inf
        squares[b], squares[:, b] = near, near
        squares[a], squares[:, a] = np.inf, np.inf
        sizes[b] += sizes[a]
        alive[a] = False
    return left, right, heights
