"""Pick the highest score again and again, each pick lowering its neighbors'."""

from __future__ import annotations

import heapq

import numpy as np

from coincide_pl.selection.arrays.dtypes import Floats, Ints


def pick_and_lower(
    scores: Floats, neighbors: Ints, weights: Floats, count: int, lowered: int
) -> Ints:
    """Greedily pick rows: s_j ← s_j - w_ij s_i for the neighbors j of a pick i.

    A heap holds a score of every row; a score that changes is pushed anew and the old entry, no
    longer true, is thrown away when it comes up. So a pick costs O(lowered log N), not O(N).

    Args:
        scores: s, [N].
        neighbors: rows [N, k], nearest first, -1 for none.
        weights: w, [N, k].
        count: how many to pick.
        lowered: how many of a pick's neighbors that are not picked yet are lowered.

    Returns:
        Rows int64 [count] in order of picking; of equal scores the lowest row.
    """
    now = np.array(scores, np.float64)
    heap = list(zip((-now).tolist(), range(len(now)), strict=True))
    heapq.heapify(heap)
    picked = np.zeros(len(now), bool)
    picks = np.empty(count, np.int64)
    done = 0
    while done < count:
        negative, row = heapq.heappop(heap)
        if picked[row] or now[row] != -negative:
            continue
        picked[row] = True
        picks[done] = row
        done += 1
        near = neighbors[row]
        use = np.flatnonzero((near >= 0) & ~picked[near])[:lowered]
        now[near[use]] -= weights[row, use] * now[row]
        for other in near[use].tolist():
            heapq.heappush(heap, (-now[other], other))
    return picks
