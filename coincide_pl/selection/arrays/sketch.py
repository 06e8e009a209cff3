"""Rows made narrow by a count sketch, for the comparisons of a clustering."""

from __future__ import annotations

import numpy as np
import torch

from coincide_pl.processes import own_share, refuse
from coincide_pl.selection.arrays.assigner import KMeansConfig, zero_unless_finite
from coincide_pl.selection.arrays.exact import widened
from coincide_pl.selection.arrays.own_rows import OwnRows
from coincide_pl.selection.arrays.rows import BLOCK, Rows


def sketch(rows: Rows, width: int, config: KMeansConfig) -> OwnRows:
    """Rows made narrow: columns in random groups, each with a random sign, added up.

    Stretches of `width` columns are laid on each other, each turned by a random number of places.

    Returns:
        float16 [n, width], of which each process holds its share; the sums are exact before they
        are rounded.
    """
    random = np.random.default_rng([config.seed, width])
    signs = torch.from_numpy(random.choice([-1.0, 1.0], rows.width))
    spans = [slice(i, min(i + width, rows.width)) for i in range(0, rows.width, width)]
    turns = random.integers(0, width, len(spans)).tolist()
    own = own_share(len(rows))
    narrow = np.zeros((own.stop - own.start, width), np.float16)
    height = max(1, min(BLOCK // rows.row_bytes, config.memory // 4 // (12 * rows.width)))
    bad = -1
    for place, block in rows.blocks(height, own):
        bad = max(bad, zero_unless_finite(block, rows, place.start))
        total = torch.zeros(len(block), width, dtype=torch.float64)
        for span, turn in zip(spans, turns, strict=True):
            part = widened(block[:, span]).mul_(signs[span])
            cut = max(0, part.shape[1] - turn)  # column c goes to c - turn, round the end
            total[:, :cut] += part[:, part.shape[1] - cut :]
            total[:, width - turn : width - turn + part.shape[1] - cut] += part[
                :, : part.shape[1] - cut
            ]
        narrow[place.start - own.start : place.stop - own.start] = total.half().numpy()
    refuse(bad)
    return OwnRows(narrow, len(rows))
