"""Cosines between all centroids, in blocks and by all processes, each pair once."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import torch

from coincide_pl.processes import group_size, own_share, passed, shares
from coincide_pl.selection.arrays.dtypes import Floats
from coincide_pl.selection.arrays.rows import MEMORY

Pairs = tuple[slice, slice, torch.Tensor]


def centroid_pairs(
    own: Floats,
    count: int,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    memory: int = MEMORY,
    device: str | torch.device = "cpu",
) -> Iterator[Pairs]:
    """Inner products of all pairs of centroids, of which each process yields its part.

    Centroids are sent round in blocks, once. A pair of blocks of two processes is computed by one
    of them, so that each has as much to do; where a block meets itself, it has each pair twice.

    Args:
        own: float [own clusters, D], the centroids that this process owns.
        count: K, centroids of all processes.
        prepare: gives the vectors that are compared, float64 [b, d], for some centroids [b, D].
        memory: bytes for blocks and products.
        device: where they are multiplied.

    Yields:
        Which clusters, which other ones (the same, or none of them), and the products, float64
        [a, b], on the device.
    """
    _, rank = group_size()
    mine = own_share(count)
    room = memory // 4 // (24 * max(1, own.shape[1]))
    height = max(1, min(1024 if torch.device(device).type == "cpu" else 4096, room))

    def vectors(centroids: Floats) -> torch.Tensor:
        return prepare(torch.from_numpy(np.ascontiguousarray(centroids)).to(device))

    owners = [
        owner
        for owner, share in enumerate(shares(count))
        for _ in range(share.start, share.stop, height)
    ]
    for owner, (which, block) in zip(owners, passed(own, count, height), strict=True):
        if owner != rank and (rank < owner) == ((rank + owner) % 2 == 0):
            continue
        right = vectors(block)
        for start in range(mine.start, mine.stop, height):
            here = slice(start, min(start + height, mine.stop))
            if owner == rank and here.start < which.start:
                continue
            same = here == which
            left = right if same else vectors(own[here.start - mine.start : here.stop - mine.start])
            yield here, which, left @ right.T
