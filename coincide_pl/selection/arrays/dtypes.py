"""Names for arrays by what they hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Array = npt.NDArray[Any]
"""Of any dtype."""
Bools = npt.NDArray[np.bool_]
Ints = npt.NDArray[np.integer]
Floats = npt.NDArray[np.floating]
Arrays = dict[str, Array]
"""Arrays by name, as a file holds them."""
ArrayLike = Array | torch.Tensor
"""What the published functions take and give: numpy or torch."""


def array_of(given: ArrayLike) -> Array:
    """What a caller gave as an array; bfloat16, which numpy has not, as float32."""
    if not isinstance(given, torch.Tensor):
        return np.asarray(given)
    tensor = given.detach().cpu()
    array: Array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def like(array: Array, given: object) -> ArrayLike:
    """An array as what a caller gave: a tensor where that is one, on its device."""
    return torch.from_numpy(array).to(given.device) if isinstance(given, torch.Tensor) else array
