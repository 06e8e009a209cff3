"""Processes of one run: what the first does for all, and what each does of a share of the rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar, cast

import numpy as np
import torch
from torch import distributed

from coincide_pl.errors import CoincideError, SelectionError

if TYPE_CHECKING:
    from lightning.pytorch.strategies import Strategy

T = TypeVar("T")


def group_size() -> tuple[int, int]:
    """Processes that cluster together, and which of them this is."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size(), distributed.get_rank()
    return 1, 0


def summed(array: np.ndarray) -> np.ndarray:
    """The sum over all processes; exact, so in any order."""
    if group_size()[0] > 1:
        total = torch.from_numpy(array).to(exchange_device())
        distributed.all_reduce(total)
        array = total.cpu().numpy()
    return array


def gathered(parts: list[np.ndarray], rank: int) -> list[np.ndarray]:
    """Each process's own part, from all of them."""
    device = exchange_device()
    out: list[np.ndarray] = []
    for source, part in enumerate(parts):
        tensor = torch.from_numpy(np.ascontiguousarray(part)).to(device)
        distributed.broadcast(tensor, source)
        out.append(tensor.cpu().numpy())
    return out


def exchange_device() -> torch.device:
    """Where tensors must lie to be exchanged."""
    nccl = distributed.get_backend() == "nccl"
    return torch.device("cuda", torch.cuda.current_device()) if nccl else torch.device("cpu")


def refuse(bad: int) -> None:
    """Stop, in all processes, if any of them has met a row that is not finite.

    Raises:
        SelectionError: naming the record.
    """
    if group_size()[0] > 1:
        worst = torch.tensor([bad], device=exchange_device())
        distributed.all_reduce(worst, distributed.ReduceOp.MAX)
        bad = int(worst)
    if bad >= 0:
        error = SelectionError(f"the features of record {bad} hold NaN or infinity")
        error.shared = True
        raise error


def on_first_process(strategy: Strategy | None, action: Callable[[], T]) -> T:
    """Do something on the first process; the others wait for it, and get what it returned.

    Args:
        strategy: of the trainer; None for one process without a trainer.
        action: what is done once.

    Raises:
        CoincideError: what the action raised, in every process.
    """
    if strategy is None:
        return action()
    from lightning.fabric.utilities.distributed import _InfiniteBarrier

    error: CoincideError | None = None
    result: T | None = None
    with _InfiniteBarrier():  # it may take hours; other barriers give up after 30 minutes
        if strategy.is_global_zero:
            try:
                result = action()
            except CoincideError as caught:
                error = caught
    error, result = strategy.broadcast((error, result))
    if error is not None:
        error.shared = True
        raise error
    return cast(T, result)
