"""How worker processes hand batches over: in shared memory, or through a pipe where it is small.

Containers often have 64 MiB of shared memory. A batch that does not fit there is lost without a
word to the training process, which would wait for it for ever.
"""

from __future__ import annotations

import multiprocessing.queues
import os
import pickle
import signal
import sys
import threading
from dataclasses import fields

from torch import Tensor
from torch.utils.data import Dataset, get_worker_info

from coincide_pl import ranks
from coincide_pl.data.collation import Batch, EncodedBatches
from coincide_pl.interruption import SIGNALS

SHARED_MEMORY = "/dev/shm"
PAGE = 4096
"""Bytes; a tensor in shared memory takes whole pages."""
IN_FLIGHT = 4
"""Batches that need room, per worker: two are made ahead, and others may be larger."""


class HandedOver(Dataset[Batch | bytes]):
    """The batches of a dataset, as bytes for a pipe where a worker finds no room to share them."""

    def __init__(self, batches: EncodedBatches) -> None:
        """Wraps a dataset.

        Args:
            batches: maps a list of rows to a batch.
        """
        self.batches = batches

    def __getitem__(self, rows: list[int]) -> Batch | bytes:
        """The batch of some rows."""
        batch = self.batches[rows]
        worker = get_worker_info()
        if worker is None:
            return batch
        workers = worker.num_workers * ranks.processes_here()
        if IN_FLIGHT * workers * shared_bytes(batch) <= free_bytes():
            return batch
        return pickle.dumps(batch)


def received(batch: Batch | bytes) -> Batch:
    """A batch that was handed over, in either way."""
    if isinstance(batch, Batch):
        return batch
    made: Batch = pickle.loads(batch)
    return made


def shared_bytes(batch: Batch) -> int:
    """What a batch's tensors take of shared memory."""
    return sum(-(-one.nbytes // PAGE) * PAGE for one in _tensors(batch))


def free_bytes() -> int:
    """How much room shared memory has; 0 where there is none."""
    try:
        found = os.statvfs(SHARED_MEMORY)
    except OSError:
        return 0
    return found.f_bavail * found.f_frsize


def prepare_worker(worker: int) -> None:
    """Has a worker end when a batch can't be handed over, so that nobody waits for it.

    Signals that ask the command to end are for its process, which may need some batches more to end
    well: SLURM and torchrun send them to the workers, too.

    Args:
        worker: its number.
    """
    if hasattr(signal, "sigwaitinfo"):  # not on macOS
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=_obey_parent, daemon=True).start()
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end)  # type: ignore[attr-defined]


def _obey_parent() -> None:
    """Ends the worker when its own process says so."""
    while signal.sigwaitinfo(SIGNALS).si_pid != os.getppid():
        pass
    os._exit(0)


def _end(error: BaseException, _: object) -> None:
    reason = " ".join(str(error).split())
    sys.stderr.write(
        f"error: a worker could not hand over a batch ({reason}): give {SHARED_MEMORY} more room "
        "(docker run --shm-size), or set data.num_workers=0\n"
    )
    sys.stderr.flush()
    os._exit(1)


def _tensors(value: object) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        return [one for part in value.values() for one in _tensors(part)]
    if isinstance(value, Batch):
        return [one for field in fields(value) for one in _tensors(getattr(value, field.name))]
    return []
