"""Very many clusters: cells first, then clusters inside each cell, whole cells by one process."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from coincide_pl.processes import (
    all_at_the_end,
    by_itself,
    exchanged,
    group_size,
    joined,
    shares,
)
from coincide_pl.selection.arrays.assigner import KMeansConfig
from coincide_pl.selection.arrays.dtypes import Ints
from coincide_pl.selection.arrays.lloyd import lloyd
from coincide_pl.selection.arrays.rows import Rows


def two_levels(rows: Rows, num_clusters: int, config: KMeansConfig) -> Ints:
    """About sqrt(K) cells, then each cell's share of the K clusters inside it.

    A cell's rows are sent to one process, which clusters them by itself; cells that hold more than
    a process's share of all rows are clustered by all processes.

    Returns:
        Labels of this process's rows, int64 [own rows].
    """
    plain = replace(config, checkpointer=None)
    _, own_cells = lloyd(rows, max(1, math.isqrt(num_clusters)), plain)
    cells = joined(own_cells)
    sizes = np.bincount(cells)
    parts = np.diff(np.cumsum(sizes) * num_clusters // len(rows), prepend=0)
    # A cell gets a cluster at least where it has rows: the largest shares make up for it.
    parts = np.where(sizes > 0, np.maximum(parts, 1), 0)
    for _ in range(int(parts.sum()) - num_clusters):
        parts[parts.argmax()] -= 1
    first = np.cumsum(parts) - parts
    ranks, rank = group_size()
    labels = np.empty(len(own_cells), np.int64)
    held = rows.own
    inner = [
        replace(plain, fit_rows=config.fit_rows and max(part, config.fit_rows * size // len(rows)))
        for part, size in zip(parts.tolist(), sizes.tolist(), strict=True)
    ]
    alone: list[list[int]] = [[] for _ in range(ranks)]
    load = [0] * ranks
    for cell in np.argsort(-sizes, kind="stable").tolist():
        if sizes[cell] * ranks > len(rows):
            inside = np.flatnonzero(cells == cell)
            _, own = lloyd(rows.subset(inside), int(parts[cell]), inner[cell])
            labels[own_cells == cell] = own + first[cell]
        elif sizes[cell]:
            least = load.index(min(load))
            alone[least].append(cell)
            load[least] += int(sizes[cell])
    wanted = [np.flatnonzero(np.isin(cells, some)) for some in alone]
    height = max(1, config.memory // 4 // max(1, rows.row_bytes))
    here = rows if ranks == 1 else Rows(rows.delivered(wanted, height))
    mine, found = cells[wanted[rank]], np.empty(len(wanted[rank]), np.int64)
    with all_at_the_end(), by_itself():
        for cell in alone[rank]:
            inside = np.flatnonzero(mine == cell)
            _, own = lloyd(here.subset(inside), int(parts[cell]), inner[cell])
            found[inside] = own + first[cell]
    ends = np.searchsorted(wanted[rank], [share.stop for share in shares(len(rows))])
    for some, part in zip(wanted, exchanged(np.split(found, ends[:-1])), strict=True):
        back = some[slice(*np.searchsorted(some, [held.start, held.stop]))]
        labels[back - held.start] = part
    return labels
