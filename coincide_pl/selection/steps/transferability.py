"""Transferability of a cluster, from the cosines between centroids."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import ArrayLike
from coincide_pl.selection.arrays.exact import rounded_unit

Modality = Literal["text", "visual", "both"]


def transferability(
    centroids: ArrayLike,
    num_layers: int,
    modality: Modality = "text",
    exclude_above: float | None = 0.9,
) -> ArrayLike:
    """S_i: the mean cosine of centroid i with the others, S_i = mean_j cos(c_i, c_j).

    The defaults are the authors' code: text halves only, and pairs more similar than 0.9 left out,
    the cluster itself among them. The paper's plain mean over the other clusters is
    `modality="both", exclude_above=None`.

    Args:
        centroids: [K, layers * 2 * hidden], [visual, text] per layer.
        num_layers: M.
        modality: which halves are compared.
        exclude_above: pairs with a larger cosine are left out; `None` leaves out the cluster itself
            only. A cluster with no pair left gets this bound itself.

    Returns:
        float64 [K], of the kind of `centroids`.

    Raises:
        SelectionError: the width does not divide into layers and halves, or a centroid is not
            finite.

    Example:
        >>> import numpy as np
        >>> centroids = np.array([[1, 0, 1, 0], [0, 1, 0.6, 0.8], [1, 0, 0, 1]])  # [visual, text]
        >>> transferability(centroids, num_layers=1).round(2)
        array([0.3, 0.7, 0.4])
    """
    tensor = isinstance(centroids, torch.Tensor)
    rows = torch.as_tensor(centroids if tensor else np.asarray(centroids)).detach()
    if modality not in get_args(Modality):
        raise SelectionError(
            f"modality: {modality!r} must be one of {', '.join(get_args(Modality))}"
        )
    if num_layers < 1 or rows.ndim != 2 or not rows.shape[1] or rows.shape[1] % (2 * num_layers):
        raise SelectionError(
            f"centroids of shape {tuple(rows.shape)} do not divide into {num_layers} layers "
            "of a visual and a text half"
        )
    finite = torch.isfinite(rows).all(1)
    if not finite.all():
        raise SelectionError(f"centroid {int(finite.int().argmin())} holds NaN or infinity")
    halves = rows.reshape(len(rows), num_layers, 2, -1)
    if modality != "both":
        halves = halves[:, :, ("visual", "text").index(modality)]
    unit = rounded_unit(halves.reshape(len(rows), -1))
    scores = torch.empty(len(rows), dtype=torch.float64, device=rows.device)
    for start in range(0, len(rows), 1024):
        cosines = unit[start : start + 1024] @ unit.T
        here = torch.arange(len(cosines), device=rows.device)
        if exclude_above is None:
            cosines[here, here + start] = 0
            scores[start : start + 1024] = row_sums(cosines) / max(len(rows) - 1, 1)
        else:
            kept = cosines <= exclude_above
            counts = kept.sum(1)
            means = row_sums(cosines * kept) / counts.clamp(min=1)
            scores[start : start + 1024] = torch.where(counts > 0, means, exclude_above)
    return scores if tensor else scores.numpy()


def row_sums(matrix: torch.Tensor) -> torch.Tensor:
    """Sum of each row in one order, whatever the number of rows and threads."""
    return torch.from_numpy(matrix.cpu().numpy().sum(1)).to(matrix.device)
