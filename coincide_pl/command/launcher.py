"""The processes of a run: how they are started, meet, and end too when one of them is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from lightning.fabric.plugins.environments import ClusterEnvironment
from torch.distributed import DistNetworkError

from coincide_pl import ranks
from coincide_pl.command.lightning_internals import ScriptLauncher
from coincide_pl.command.main import PATIENCE
from coincide_pl.command.watch import watch
from coincide_pl.errors import GO_ON, ConfigError, ProcessError
from coincide_pl.interruption import interruption
from coincide_pl.models.loading import first_line

EVERY = 0.5
"""Seconds between two looks at the other processes."""
PARENT = "COINCIDE_PL_PARENT"
"""The environment variable that tells a process which one started it."""


class Launcher(ScriptLauncher):
    """Starts the other processes as Lightning's does, and watches them to the end.

    Lightning's own kills everything without a word, and leaves the others behind when the first
    process is killed.
    """

    def launch(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Starts the other processes, then calls the function."""
        kwargs.pop("trainer", None)
        self.cluster_environment.validate_settings(
            num_devices=self.num_processes, num_nodes=self.num_nodes
        )
        if not self.cluster_environment.creates_processes_externally:
            os.environ[PARENT] = str(os.getpid())
            self.start_others()
            threading.Thread(target=self._watch, daemon=True).start()
        share_cores(self.num_processes)
        return function(*args, **kwargs)

    @property
    def lost(self) -> str | None:
        """What became of a process that ended before its time, in words."""
        for rank, process in enumerate(self.procs, 1):
            if status := process.poll():
                how = f"exit status {status}" if status > 0 else signal.Signals(-status).name
                return f"process {process.pid} (rank {rank}) ended with {how}"
        return None

    def explain(self, error: Exception) -> Exception:
        """What is behind an error of the main thread: the loss of another process, or itself."""
        if watch.is_on:
            return watch.error() or error
        deadline = time.monotonic() + PATIENCE / 2
        while self.procs and self.lost is None and time.monotonic() < deadline:
            time.sleep(EVERY / 5)  # it is heard of by its silence before it is known to be gone
        return ProcessError(f"{self.lost}; {GO_ON}") if self.lost else error

    def end(self) -> None:
        """Ends the other processes: asks first, with the write in hand in mind, then kills."""
        for process in self.procs:
            process.terminate()
        self.wait()
        for process in self.procs:
            process.kill()
        self.procs = []

    def wait(self) -> None:
        """Gives the other processes time to come to their end."""
        deadline = time.monotonic() + PATIENCE / 2
        for process in self.procs:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0, deadline - time.monotonic()))

    def _watch(self) -> None:
        while self.procs and self.lost is None:
            time.sleep(EVERY)
        if not self.procs or watch.is_on:
            return
        message = f"error: {self.lost}; {GO_ON}\n"
        time.sleep(PATIENCE)  # the main thread learns of it where it waits for the others
        sys.stderr.write(message)
        sys.stderr.flush()
        for process in self.procs:
            process.kill()
        os._exit(ProcessError.status)


def others_are_mine() -> bool:
    """Whether the command starts all processes of this machine, and so sees them end."""
    return PARENT in os.environ


@contextmanager
def meeting(environment: ClusterEnvironment, num_processes: int, num_nodes: int) -> Iterator[None]:
    """Lets a signal end the wait for the other processes of a run, and says what is waited for.

    Args:
        environment: knows where the processes meet, and who starts them.
        num_processes: of the run, on all machines.
        num_nodes: machines of the run.
    """
    place = f"{environment.main_address}:{environment.main_port}"
    if (who := ranks.started()) is not None:
        advice = f"{who.by} starts them"
    elif num_nodes == 1 and others_are_mine():
        advice = "this one has started them"
    else:
        advice = "start the same command on every machine, each with its NODE_RANK"
    line = f"waiting for {num_processes - 1} other processes at {place}: {advice}\n"
    timer = threading.Timer(PATIENCE, lambda: ranks.speaks() and sys.stderr.write(line))
    timer.daemon = True
    timer.start()
    try:
        with interruption.waiting():
            yield
    except DistNetworkError as error:
        raise ProcessError(
            f"the processes can't meet at {place} ({first_line(error)}); if another program has "
            "that port, set MASTER_PORT to a free one"
        ) from error
    finally:
        timer.cancel()


def check_started(world_size: int) -> None:
    """Refuses a run of which somebody has started more processes than it has.

    Args:
        world_size: processes that the trainer's options make.

    Raises:
        ConfigError: each process would do the whole run.
    """
    who = ranks.started()
    if who is not None and who.processes not in (1, world_size):
        error = ConfigError(
            f"trainer.devices: {who.by} has started {who.processes} processes, but the trainer's "
            f"options make {world_size}, so that each would do the whole run; leave devices and "
            "strategy out, and they are as they must be"
        )
        error.shared = True
        raise error


def share_cores(num_processes: int) -> None:
    """Gives each process of this machine its part of the cores, unless the user has set it.

    SLURM gives each task its cores, where it was asked for a number of them.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        cores = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
        threads = max(1, cores // num_processes)
        if (who := ranks.started()) is not None and who.by == "srun":
            threads = int(os.environ.get("SLURM_CPUS_PER_TASK") or threads)
        torch.set_num_threads(threads)
        os.environ["OMP_NUM_THREADS"] = str(threads)


def end_with_parent() -> None:
    """Ends this process, which another one started, when that one is gone.

    An error of its own is kept back a moment: most often it is that the other one is gone.
    """
    parent = int(os.environ.get(PARENT) or os.getppid())  # it may be gone already

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(EVERY)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
