"""Processes of one run: what the first does for all, and what each does of a share of the rows."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import distributed

from coincide_pl.errors import CoincideError, SelectionError
from coincide_pl.interruption import interruption

T = TypeVar("T")

PATIENCE = timedelta(days=365)
"""For what the first process does: it may take hours, and a group gives up after 30 minutes."""


def group_size() -> tuple[int, int]:
    """How many processes work together, and which of them this is."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def shares(count: int) -> list[slice]:
    """The rows of each process, one share after the other, of sizes that differ by one at most."""
    ranks, _ = group_size()
    ends = [count * rank // ranks for rank in range(ranks + 1)]
    return [slice(*pair) for pair in itertools.pairwise(ends)]


def own_share(count: int) -> slice:
    """The rows of this process."""
    return shares(count)[group_size()[1]]


def summed(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The sum over all processes; exact, so in any order."""
    if group_size()[0] > 1:
        total = torch.from_numpy(array).to(exchange_device())
        with interruption.waiting():
            distributed.all_reduce(total)
        array = total.cpu().numpy()
    return array


def gathered(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """An array of which each process has filled its share of the rows, with everybody's."""
    if group_size()[0] == 1:
        return array
    parts: list[npt.NDArray[Any]] = []
    for source, share in enumerate(shares(len(array))):
        part = torch.from_numpy(np.ascontiguousarray(array[share])).to(exchange_device())
        with interruption.waiting():
            distributed.broadcast(part, source)
        parts.append(part.cpu().numpy())
    return np.concatenate(parts)


def exchange_device() -> torch.device:
    """Where tensors must lie to be exchanged."""
    nccl = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def refuse(bad: int) -> None:
    """Stop, in all processes, if any of them has met a row that is not finite.

    Args:
        bad: number of such a record, or -1.

    Raises:
        SelectionError: naming the record.
    """
    if group_size()[0] > 1:
        worst = torch.tensor([bad], device=exchange_device())
        with interruption.waiting():
            distributed.all_reduce(worst, distributed.ReduceOp.MAX)
        bad = int(worst)
    if bad >= 0:
        error = SelectionError(f"the features of record {bad} hold NaN or infinity")
        error.shared = True
        raise error


def on_first_process(action: Callable[[], T]) -> T:
    """Do something on the first process; the others wait for it, and get what it returned.

    Args:
        action: what is done once; what it returns is copied to the others.

    Raises:
        CoincideError: what the action raised, in every process.
    """
    ranks, rank = group_size()
    if ranks == 1:
        return action()
    error: CoincideError | None = None
    result: T | None = None
    with patient_group() as group:
        if rank == 0:
            try:
                result = action()
            except CoincideError as caught:
                error = caught
        outcome: list[Any] = [error, result]
        with interruption.waiting():
            distributed.broadcast_object_list(outcome, 0, group=group)
    error, result = outcome
    if error is not None:
        error.shared = True
        raise error
    returned: T = result
    return returned


@contextmanager
def patient_group() -> Iterator[Any]:
    """A group of all processes that waits as long as it takes."""
    group = distributed.new_group(backend="gloo", timeout=PATIENCE)
    try:
        yield group
    finally:
        distributed.destroy_process_group(group)
