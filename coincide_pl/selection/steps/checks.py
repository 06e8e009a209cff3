"""Checks of what the published functions are given: one line for each mistake."""

from __future__ import annotations

import operator

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import ArrayLike, Floats, Ints, array_of


def positive(**values: float) -> None:
    """Refuses the first of some parameters, by name, that is no positive number."""
    for name, value in values.items():
        if not 0 < value < float("inf"):
            raise SelectionError(f"{name}: {value} must be {'finite' if value > 0 else 'positive'}")


def count_of(count: int, available: int) -> int:
    """How many samples are wanted, from 0 to all that are there.

    Raises:
        SelectionError: it is no whole number, or there are not as many.
    """
    try:
        wanted = operator.index(count)
    except TypeError as error:
        raise SelectionError(f"count: {count!r} must be a whole number") from error
    if not 0 <= wanted <= available:
        raise SelectionError(f"can't pick {wanted} of {available} samples")
    return wanted


def numbers(name: str, given: ArrayLike) -> Floats:
    """Numbers, one for each cluster, [K].

    Raises:
        SelectionError: they are something else.
    """
    array = array_of(given)
    if array.ndim != 1 or array.dtype.kind not in "fiu":
        raise SelectionError(
            f"{name} must be a number for each cluster, not {array.dtype} of shape {array.shape}"
        )
    return array


def whole_numbers(name: str, given: ArrayLike) -> Ints:
    """Whole numbers from 0 on, int [N].

    Raises:
        SelectionError: they are something else.
    """
    array = array_of(given)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise SelectionError(
            f"{name} must be whole numbers, [N], not {array.dtype} of shape {array.shape}"
        )
    if len(array) and array.min() < 0:
        raise SelectionError(f"{name} must not be negative, as {array.min()} is")
    return array


def labels_of(labels: ArrayLike, num_rows: int, num_clusters: int | None = None) -> Ints:
    """The cluster of each row, int [N].

    Args:
        labels: as given.
        num_rows: N.
        num_clusters: K, where it is known.

    Raises:
        SelectionError: they are not as many, no whole numbers, or outside 0 to K - 1.
    """
    array = whole_numbers("labels", labels)
    last = "" if num_clusters is None else f" from 0 to {num_clusters - 1}"
    beyond = num_clusters is not None and len(array) and array.max() >= num_clusters
    if len(array) != num_rows or beyond:
        raise SelectionError(f"labels must be {num_rows} numbers{last}")
    return array
