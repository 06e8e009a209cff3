"""A loader that knows how far it is, so that training can go on inside an epoch."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from itertools import islice
from typing import Any

from torch.utils.data import DataLoader

from coincide_pl import ranks
from coincide_pl.data.batches import BatchSampler
from coincide_pl.data.collation import Batch, EncodedBatches
from coincide_pl.data.handover import (
    SHARED_MEMORY,
    HandedOver,
    free_bytes,
    prepare_worker,
    received,
)
from coincide_pl.errors import ConfigError
from coincide_pl.files import reason

log = logging.getLogger(__name__)


@cache
def usable_workers(asked: int) -> int:
    """Number of worker processes to start: as many as asked for, but no more than there are cores.

    More than that take each other's time and memory. A line says so, once.

    Args:
        asked: the number that was asked for.
    """
    cores = os.cpu_count() or 1
    with suppress(AttributeError):  # what this process may use of them, where a system tells
        cores = len(os.sched_getaffinity(0))
    if asked > cores and ranks.speaks():
        log.info("data.num_workers: %d instead of %d, one for each core", cores, asked)
    return min(asked, cores)


class BatchLoader:
    """Loads the batches of a sampler; its state is how many of the epoch's it has given.

    It holds a `DataLoader` and is none: Lightning takes those apart to put in samplers of its own.
    """

    batch_sampler = None
    """Lightning looks for it wherever there is a `sampler`."""

    def __init__(
        self,
        dataset: EncodedBatches,
        sampler: BatchSampler,
        batches_per_step: int = 1,
        limit: int | float = 1.0,
        **kwargs: Any,
    ) -> None:
        """Makes the `DataLoader`, to which batches come ready from the dataset.

        Args:
            dataset: maps a list of rows to a batch.
            sampler: gives lists of rows.
            batches_per_step: batches that are accumulated into one optimizer step; as many are
                read ahead, so that each batch can tell how many tokens its step trains on.
            limit: batches of an epoch that are used, as a number or a share, as a trainer's
                `limit_train_batches`; the last step ends there.
            kwargs: further arguments of `torch.utils.data.DataLoader`.
        """
        self.sampler = sampler
        self.batches_per_step, self.limit = batches_per_step, limit
        self.batches = 0
        self._loader = DataLoader(
            HandedOver(dataset),
            batch_size=None,
            sampler=sampler,
            worker_init_fn=prepare_worker,
            **kwargs,
        )
        self._warned = False

    def __len__(self) -> int:
        """Number of batches in an epoch."""
        return len(self._loader)

    def __iter__(self) -> Iterator[Batch]:
        """The batches of an epoch that are still to come."""
        self.batches = self.sampler.skip
        end = self.limit if isinstance(self.limit, int) else int(len(self) * self.limit)
        try:
            loaded = iter(self._loader)
        except OSError as error:  # of the queues, which lie in shared memory
            raise ConfigError(
                f"data.num_workers: workers can't be started ({reason(error)}); set it to 0"
            ) from error
        while self.batches < end:
            left = self.batches_per_step - self.batches % self.batches_per_step
            step = list(map(self._received, islice(loaded, min(left, end - self.batches))))
            if not step:
                return
            trained = sum(len(batch.targets) for batch in step)
            for batch in step:
                batch.step_targets = trained
                self.batches += 1
                yield batch

    def _received(self, batch: Batch | bytes) -> Batch:
        if isinstance(batch, bytes) and not self._warned:
            log.warning(
                "%s has %d MiB free: workers hand batches over through pipes, which takes longer; "
                "give it more room (docker run --shm-size), or set data.num_workers=0",
                *(SHARED_MEMORY, free_bytes() >> 20),
            )
            self._warned = True
        return received(batch)

    def state_dict(self) -> dict[str, int]:
        """How many batches of the epoch have been given; 0 at its end."""
        return {"batches": self.batches % max(1, len(self))}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Lets the next epoch begin after the batches that a state says were given."""
        self.sampler.skip = state["batches"]
