"""Transferability of a cluster, from the cosines between centroids."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.processes import by_itself, summed
from coincide_pl.selection.arrays.centroid_pairs import centroid_pairs
from coincide_pl.selection.arrays.dtypes import ArrayLike, Floats, array_of, like
from coincide_pl.selection.arrays.exact import STEP, rounded_unit
from coincide_pl.selection.arrays.rows import MEMORY

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
    with by_itself():
        scores = own_transferability(
            array_of(centroids), len(rows), num_layers, modality, exclude_above, device=rows.device
        )
    return like(scores, centroids)


def own_transferability(
    own: Floats,
    num_clusters: int,
    num_layers: int,
    modality: Modality = "text",
    exclude_above: float | None = 0.9,
    memory: int = MEMORY,
    device: str | torch.device = "cpu",
) -> Floats:
    """Transferability of clusters whose centroids are split over the processes.

    Cosines of two centroids are exact, multiples of 2^-48, and so are their sums here: the whole
    multiples of 2^-24 and what is left are each added up to a number that a float64 holds. So the
    result depends neither on blocks and processes nor on the device.

    Args:
        own: float32 [own clusters, layers * 2 * hidden], the centroids that this process owns.
        num_clusters: K, of all processes.
        num_layers: M.
        modality: which halves are compared.
        exclude_above: see `transferability`.
        memory: bytes for blocks and products.
        device: where these are computed.

    Returns:
        float64 [K], the same in every process.
    """

    def compared(some: torch.Tensor) -> torch.Tensor:
        halves = some.reshape(len(some), num_layers, 2, -1)
        if modality != "both":
            halves = halves[:, :, ("visual", "text").index(modality)]
        return rounded_unit(halves.reshape(len(some), -1))

    totals = torch.zeros(3, num_clusters, dtype=torch.float64, device=device)
    for rows, columns, cosines in centroid_pairs(own, num_clusters, compared, memory, device):
        if exclude_above is not None:
            kept = cosines <= exclude_above
        else:
            kept = torch.ones_like(cosines, dtype=torch.bool)
            if rows == columns:
                kept.fill_diagonal_(False)
        parts = torch.stack([*in_steps(cosines * kept), kept.double()])  # [3, a, b]
        totals[:, rows] += parts.sum(2)
        if rows != columns:
            totals[:, columns] += parts.sum(1)
    high, low, counts = summed(totals.cpu().numpy())
    sums = (high + low * STEP) * STEP
    means: Floats = sums / np.maximum(counts, 1)
    return means if exclude_above is None else np.where(counts > 0, means, exclude_above)


def in_steps(cosines: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole multiples of 2^-24, and what is left of each number in multiples of 2^-48."""
    steps = cosines / STEP
    high = steps.floor()
    return high, (steps - high) / STEP
