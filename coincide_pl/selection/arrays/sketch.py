"""Rows made narrow by a count sketch, for the comparisons of a clustering."""

from __future__ import annotations

import itertools

import numpy as np
import torch

from coincide_pl.processes import gathered, group_size, refuse
from coincide_pl.selection.arrays.assigner import Setting, zero_unless_finite
from coincide_pl.selection.arrays.rows import Rows


def sketch(rows: Rows, width: int, setting: Setting) -> np.ndarray:
    """Rows made narrow: columns in random groups, each with a random sign, added up.

    Stretches of `width` columns are laid on each other, each turned by a random number of places.

    Returns:
        float16 [n, width]; the sums are exact before they are rounded.
    """
    random = np.random.default_rng([setting.seed, width])
    signs = torch.from_numpy(random.choice([-1.0, 1.0], rows.width))
    spans = [slice(i, min(i + width, rows.width)) for i in range(0, rows.width, width)]
    turns = random.integers(0, width, len(spans)).tolist()
    narrow = np.zeros((len(rows), width), np.float16)
    ranks, rank = group_size()
    ends = [len(rows) * i // ranks for i in range(ranks + 1)]
    height = max(1, min(4096, setting.memory // 4 // (12 * rows.width)))
    share = np.arange(ends[rank], ends[rank + 1])
    groups = (share[i : i + height] for i in range(0, len(share), height))
    at, bad = ends[rank], -1
    for block in rows.gathers(groups):
        bad = max(bad, zero_unless_finite(block, rows, at))
        total = torch.zeros(len(block), width, dtype=torch.float64)
        for span, turn in zip(spans, turns, strict=True):
            part = torch.from_numpy(block[:, span]).double().mul_(signs[span])
            cut = max(0, part.shape[1] - turn)  # column c goes to c - turn, round the end
            total[:, :cut] += part[:, part.shape[1] - cut :]
            total[:, width - turn : width - turn + part.shape[1] - cut] += part[
                :, : part.shape[1] - cut
            ]
        narrow[at : at + len(block)] = total.half().numpy()
        at += len(block)
    refuse(bad)
    if ranks > 1:
        parts = [narrow[a:b] for a, b in itertools.pairwise(ends)]
        narrow = np.concatenate(gathered(parts, rank))
    return narrow
