"""Processes of one run: what the first does for all, and what each does of a share of the rows."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
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


@dataclass
class Traffic:
    """What this process has been sent.

    Attributes:
        received: bytes from other processes, by any of the functions below; a sum over all
            processes counts twice what each gets in it, less its own share.
    """

    received: int = 0


traffic = Traffic()
"""The traffic of this process; there is one."""
_by_itself = False


def group_size() -> tuple[int, int]:
    """How many processes work together, and which of them this is."""
    if not _by_itself and distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


@contextmanager
def by_itself() -> Iterator[None]:
    """Marks a block in which this process works without the others: its group is of one."""
    global _by_itself
    before, _by_itself = _by_itself, True
    try:
        yield
    finally:
        _by_itself = before


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
    return _reduced(array, distributed.ReduceOp.SUM)


def largest(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The largest entries over all processes, entry by entry."""
    return _reduced(array, distributed.ReduceOp.MAX)


def everywhere(condition: bool) -> bool:
    """Whether a condition holds in all processes; all must ask."""
    return bool(largest(np.array([not condition], np.int64))[0] == 0)


def joined(own: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The arrays [n_p, ...] of all processes, one after the other, [sum of n_p, ...]."""
    ranks, rank = group_size()
    if ranks == 1:
        return own
    sizes = np.zeros(ranks, np.int64)
    sizes[rank] = len(own)
    ends = np.append(0, np.cumsum(summed(sizes))).tolist()
    whole = np.empty((ends[-1], *own.shape[1:]), own.dtype)
    whole[ends[rank] : ends[rank + 1]] = own
    for source, (start, stop) in enumerate(itertools.pairwise(ends)):
        whole[start:stop] = _broadcast(whole[start:stop], source)
    return whole


def passed(own: npt.NDArray[Any], count: int, height: int) -> Iterator[tuple[slice, Any]]:
    """The rows of all processes in blocks, one after the other; all must take all of them.

    Args:
        own: [n, ...], this process's share of the rows.
        count: rows of all processes, of which each has its `own_share`.
        height: rows of a block at most.

    Yields:
        Which rows, and the rows; a block never holds rows of two processes.
    """
    _, rank = group_size()
    for source, share in enumerate(shares(count)):
        for start in range(share.start, share.stop, height):
            stop = min(start + height, share.stop)
            if source == rank:
                block = own[start - share.start : stop - share.start]
            else:
                block = np.empty((stop - start, *own.shape[1:]), own.dtype)
            yield slice(start, stop), _broadcast(block, source)


def exchanged(parts: Sequence[npt.NDArray[Any]]) -> list[npt.NDArray[Any]]:
    """Gives every process what each has for it: an all-to-all.

    Args:
        parts: for each process, rows [n, ...]; of one dtype and width, here and everywhere.

    Returns:
        What each process had for this one.
    """
    ranks, rank = group_size()
    if ranks == 1:
        return list(parts)
    device, shape, dtype = exchange_device(), parts[0].shape[1:], parts[0].dtype
    width = math.prod(shape) * dtype.itemsize
    counts = torch.tensor([len(part) for part in parts], device=device)
    coming = torch.empty_like(counts)
    ours = np.concatenate([np.ascontiguousarray(part).reshape(-1) for part in parts])
    with interruption.waiting():
        distributed.all_to_all_single(coming, counts)
        sizes = [width * number for number in coming.tolist()]
        found = torch.empty(sum(sizes), dtype=torch.uint8, device=device)
        distributed.all_to_all_single(
            found,
            torch.from_numpy(ours.view(np.uint8)).to(device),
            sizes,
            [width * len(part) for part in parts],
        )
    traffic.received += sum(sizes) - sizes[rank]
    whole = found.cpu().numpy().view(dtype).reshape(-1, *shape)
    return np.split(whole, np.cumsum(coming.tolist())[:-1])


def exchange_device() -> torch.device:
    """Where tensors must lie to be exchanged."""
    nccl = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def _reduced(array: npt.NDArray[Any], operation: Any) -> npt.NDArray[Any]:
    ranks, _ = group_size()
    if ranks == 1:
        return array
    total = torch.from_numpy(array.copy()).to(exchange_device())
    with interruption.waiting():
        distributed.all_reduce(total, operation)
    traffic.received += 2 * array.nbytes * (ranks - 1) // ranks
    reduced: npt.NDArray[Any] = total.cpu().numpy()
    return reduced


def _broadcast(array: npt.NDArray[Any], source: int) -> npt.NDArray[Any]:
    """An array of one process, for all; the others give one of its shape and dtype."""
    ranks, rank = group_size()
    if ranks == 1:
        return array
    whole = np.ascontiguousarray(array)
    as_bytes = torch.from_numpy(whole.reshape(-1).view(np.uint8)).to(exchange_device())
    with interruption.waiting():
        distributed.broadcast(as_bytes, source)
    traffic.received += 0 if rank == source else whole.nbytes
    return as_bytes.cpu().numpy().view(whole.dtype).reshape(whole.shape)


def refuse(bad: int) -> None:
    """Stop, in all processes, if any of them has met a row that is not finite.

    Args:
        bad: number of such a record, or -1.

    Raises:
        SelectionError: naming the record.
    """
    bad = int(largest(np.array([bad], np.int64))[0])
    if bad >= 0:
        error = SelectionError(f"the features of record {bad} hold NaN or infinity")
        error.shared = True
        raise error


@contextmanager
def all_at_the_end() -> Iterator[None]:
    """Marks a block at whose end all processes wait for each other, however long one takes."""
    if group_size()[0] == 1:
        yield
        return
    with patient_group() as group:
        yield
        with interruption.waiting():
            distributed.barrier(group=group)


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
