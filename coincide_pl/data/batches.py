"""Plan batches from the data alone, and hand whole batches to the processes of a run.

Which rows share a batch depends on the records, the batch size, the seed and the epoch, never on
the number of processes: so a row's arithmetic is the same whoever does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np
from torch.utils.data import Sampler

BUCKET = math.log(1.125)
"""Lengths within about 12 % of each other count as alike."""
MEGABATCH = 50
"""Batches whose rows are roughly sorted by length together, while shuffled otherwise."""

Plan = list[np.ndarray]


def plan_in_order(
    lengths: np.ndarray, image_codes: np.ndarray, batch_size: int, rows: np.ndarray | None = None
) -> Plan:
    """Batches for reading every row once: like lengths and shared images together.

    Args:
        lengths: [N], in any unit proportional to the work.
        image_codes: int64 [N], equal for rows that show the same image, -1 for none.
        batch_size: rows per batch; the last may be smaller.
        rows: which rows (default: all).

    Returns:
        int64 arrays of row indices.
    """
    rows = np.arange(len(lengths)) if rows is None else np.asarray(rows)
    buckets = _buckets(lengths[rows])
    order = rows[np.lexsort((rows, image_codes[rows], buckets, image_codes[rows] < 0))]
    return _cut(order, batch_size)


def plan_shuffled(
    lengths: np.ndarray,
    has_image: np.ndarray,
    batch_size: int,
    *,
    seed: int,
    epoch: int,
    rows: np.ndarray | None = None,
) -> Plan:
    """Batches for training: shuffled, yet of like lengths and one modality each.

    The rows with and those without images are permuted apart; stretches of `MEGABATCH` batches are
    sorted by length, as roughly as padding allows; the batches are shuffled. At most one batch of
    a modality is not full. (Sorted exactly, rows of equal length would always meet: a batch would
    be one question asked over and over, or one answer.)

    Args:
        lengths: [N].
        has_image: bool [N].
        batch_size: rows per batch.
        seed: of the permutation.
        epoch: each has its own permutation.
        rows: which rows (default: all).

    Returns:
        int64 arrays of row indices.
    """
    rows = np.arange(len(lengths)) if rows is None else np.sort(np.asarray(rows))
    random = np.random.default_rng([seed, epoch])
    batches: Plan = []
    for modality in (True, False):
        mixed = random.permutation(rows[has_image[rows] == modality])
        for start in range(0, len(mixed), MEGABATCH * batch_size):
            stretch = mixed[start : start + MEGABATCH * batch_size]
            order = np.argsort(_buckets(lengths[stretch]), kind="stable")
            batches += _cut(stretch[order], batch_size)
    return [batches[i] for i in random.permutation(len(batches))]


def _buckets(lengths: np.ndarray) -> np.ndarray:
    return np.floor(np.log1p(lengths) / BUCKET)


def _cut(order: np.ndarray, batch_size: int) -> Plan:
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


class BatchSampler(Sampler[list[int]]):
    """Hands batch i of a plan to process i mod world.

    With `even`, every process gets as many batches: the plan goes on with its first ones, as
    training under DDP must step together.
    """

    def __init__(self, plan: Callable[[int], Plan], rank: int, world: int, even: bool) -> None:
        """Plans the first epoch.

        Args:
            plan: the batches of an epoch.
            rank: this process.
            world: number of processes.
            even: whether every process must get as many.
        """
        self.plan, self.rank, self.world, self.even = plan, rank, world, even
        self.skip = 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Plans an epoch."""
        batches = self.plan(epoch)
        if self.even and batches:
            short = -len(batches) % self.world
            batches = batches + [batches[i % len(batches)] for i in range(short)]
        self.batches = batches[self.rank :: self.world]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        skip, self.skip = self.skip, 0
        for batch in self.batches[skip:]:
            yield batch.tolist()
