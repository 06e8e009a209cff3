"""Plan batches from the data alone, and hand whole batches to the processes of a run.

Which rows share a batch depends on the records, the batch size, the seed and the epoch, never on
the number of processes: so a row's arithmetic is the same whoever does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch.utils.data import Sampler

BUCKET = math.log(1.125)
"""Width of a class of lengths, on a scale of logarithms: lengths within about 12 % are alike."""
MEGABATCH = 50
"""How many batches are sorted by length together, so that a batch holds rows of like lengths."""

Rows = npt.NDArray[np.int64]
"""Row indices."""
Lengths = npt.NDArray[np.int64]
"""Lengths [N] of all rows, in any unit proportional to the work."""
Plan = list[Rows]


@dataclass(frozen=True)
class Size:
    """The bound on a batch: a number of rows, or of tokens.

    Attributes:
        rows: rows of a batch, where `tokens` is not given.
        tokens: the most tokens of a batch, padding included, in the unit of the lengths; a row
            that is longer than this is a batch of its own.
    """

    rows: int
    tokens: int | None = None

    def expected(self, lengths: Lengths) -> int:
        """How many rows fit a batch if all are as long as these, at least 1."""
        if self.tokens is None or not len(lengths):
            return self.rows
        return max(1, int(self.tokens / max(1.0, float(lengths.mean()))))

    def cut(self, order: Rows, lengths: Lengths) -> Plan:
        """Cuts an order of rows into batches of consecutive rows.

        Args:
            order: int64 row indices.
            lengths: [N] of all rows.
        """
        if self.tokens is None:
            return [order[i : i + self.rows] for i in range(0, len(order), self.rows)]
        plan, start, longest = [], 0, 0
        for i, length in enumerate(lengths[order].tolist()):
            longest = max(longest, length)
            if i > start and (i - start + 1) * longest > self.tokens:
                plan.append(order[start:i])
                start, longest = i, length
        return [*plan, order[start:]] if len(order) else plan


def plan_in_order(
    lengths: Lengths, image_codes: npt.NDArray[np.int64], size: Size, rows: Rows | None = None
) -> Plan:
    """Batches for reading every row once: like lengths and shared images together.

    Args:
        lengths: [N], in any unit proportional to the work.
        image_codes: int64 [N], equal for rows that show the same image, -1 for none.
        size: of a batch; the last may be smaller.
        rows: which rows (default: all).

    Returns:
        int64 arrays of row indices.
    """
    rows = np.arange(len(lengths)) if rows is None else np.asarray(rows)
    buckets = _buckets(lengths[rows])
    order = rows[np.lexsort((rows, image_codes[rows], buckets, image_codes[rows] < 0))]
    return size.cut(order, lengths)


def plan_shuffled(
    lengths: Lengths,
    has_image: npt.NDArray[np.bool_],
    size: Size,
    *,
    seed: int,
    epoch: int,
    rows: Rows | None = None,
) -> Plan:
    """Batches for training: shuffled, yet of like lengths and one modality each.

    The rows with and those without images are permuted apart; stretches of `MEGABATCH` batches are
    sorted by length, as roughly as padding allows; the batches are shuffled. At most one batch of
    a modality is not full. (Sorted exactly, rows of equal length would always meet: a batch would
    be one question asked over and over, or one answer.)

    Args:
        lengths: [N].
        has_image: bool [N].
        size: of a batch.
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
        together = MEGABATCH * size.expected(lengths[mixed])
        for start in range(0, len(mixed), together):
            stretch = mixed[start : start + together]
            order = np.argsort(_buckets(lengths[stretch]), kind="stable")
            batches += size.cut(stretch[order], lengths)
    return [batches[i] for i in random.permutation(len(batches))]


def left_to_do(plan: Plan, done: npt.NDArray[np.bool_] | None, world: int) -> Plan:
    """The batches of a plan that are left to do, at least one for each process.

    No process is left without one: it would not wait for the others, and a run that was stopped
    after its last batch would not do what comes then.

    Args:
        plan: all batches, in order.
        done: bool [N], rows that are done; None where none are.
        world: number of processes.
    """
    left = [batch for batch in plan if done is None or not done[batch].all()] or plan[-1:]
    return left + left[-1:] * (world - len(left))


def _buckets(lengths: Lengths) -> npt.NDArray[np.float64]:
    buckets: npt.NDArray[np.float64] = np.floor(np.log1p(lengths) / BUCKET)
    return buckets


class BatchSampler(Sampler[list[int]]):
    """Hands batch i of a plan to process i mod world.

    With `even`, every process gets as many batches: the plan goes on with its first ones, as
    training under DDP must step together.
    """

    def __init__(self, plan: Callable[[int], Plan], rank: int, world: int, even: bool) -> None:
        """Plans the batches of the first epoch.

        Args:
            plan: the batches of an epoch.
            rank: number of this process.
            world: number of processes.
            even: whether every process must get as many batches.
        """
        self.plan, self.rank, self.world, self.even = plan, rank, world, even
        self.skip = 0
        self.set_epoch(0)

    def set_epoch(self, epoch: int) -> None:
        """Plans the batches of an epoch, and keeps those of this process."""
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
