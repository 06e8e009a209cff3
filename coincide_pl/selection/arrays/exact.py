"""Numbers rounded so that sums of their products are exact in float64, in whatever order."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from coincide_pl.selection.arrays.dtypes import Array, Floats
from coincide_pl.selection.arrays.parallel import over
from coincide_pl.selection.arrays.rows import spans

STEP = 2.0**-24
"""Entries of unit vectors are multiples of it, as float16 numbers are; a float32 holds them."""

CACHED = 1 << 19
"""Numbers in float64 that are worked on together: what a cache holds."""


def widened(array: Array) -> Tensor:
    """Any floats as float64; float16 goes through float32, which processors convert much faster."""
    numbers = torch.from_numpy(array)
    return (numbers.float() if numbers.dtype == torch.float16 else numbers).double()


def rounded_unit(vectors: Tensor) -> Tensor:
    """Vectors of norm 1 (zero stays zero), entries rounded to multiples of 2^-24.

    The inner product of two such, or of one with a float16 vector of norm 1, is a sum of multiples
    of 2^-48 that never exceeds 2: a float64 holds it without rounding.

    Args:
        vectors: [K, D], any float dtype.

    Returns:
        float64 [K, D].
    """
    unit = vectors.double()
    # numpy sums each row in one order; torch's order depends on the number of threads.
    norms = torch.from_numpy(unit.square().cpu().numpy().sum(1)).sqrt_().to(unit.device)
    return (unit / (norms.clamp_(min=1e-30) * STEP)[:, None]).round_().mul_(STEP)


def unit_centroids(centroids: Floats) -> Floats:
    """Rows of norm 1 (zero stays zero), float32, exactly multiples of 2^-24."""
    unit = np.empty(centroids.shape, np.float32)

    def fill(span: slice) -> None:
        unit[span] = rounded_unit(torch.from_numpy(centroids[span])).numpy()

    for _ in over(spans(len(unit), max(1, CACHED // max(1, centroids.shape[1]))), fill):
        pass
    return unit
