"""Which process of its run this one is, and who started it, by the variables of the environment."""

from __future__ import annotations

import os
import re
import sys
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Started:
    """What somebody else, who starts the processes of a run, says of them.

    Attributes:
        by: who starts them.
        processes: of the run, on all machines.
        nodes: machines of the run.
        processes_here: of this machine; the machines may have different numbers of them.
        rank: number of this process in the run.
        local_rank: its number on this machine.
    """

    by: Literal["torchrun", "srun"]
    processes: int
    nodes: int
    processes_here: int
    rank: int
    local_rank: int


def started() -> Started | None:
    """Who has started the processes of this run; None where the command does so itself.

    torchrun comes first, for SLURM may have started it. SLURM's shells and batch scripts have its
    variables too, but it is srun alone that starts several processes.
    """
    of = os.environ
    if "TORCHELASTIC_RUN_ID" in of:
        processes = int(of["WORLD_SIZE"])
        return Started(
            "torchrun",
            processes,
            int(of.get("GROUP_WORLD_SIZE", "1")),
            int(of.get("LOCAL_WORLD_SIZE", processes)),
            int(of["RANK"]),
            int(of["LOCAL_RANK"]),
        )
    tasks = int(of.get("SLURM_STEP_NUM_TASKS") or 1)
    if tasks == 1 or "SLURM_STEP_ID" not in of or "LOCAL_RANK" in of:
        return None
    on_nodes = tasks_per_node(of["SLURM_STEP_TASKS_PER_NODE"])
    return Started(
        "srun",
        tasks,
        len(on_nodes),
        on_nodes[int(of["SLURM_NODEID"])],
        int(of["SLURM_PROCID"]),
        int(of["SLURM_LOCALID"]),
    )


def tasks_per_node(text: str) -> list[int]:
    """The numbers that SLURM writes as `2(x3),1`: here 2, 2, 2 and 1."""
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(tasks) for tasks, times in found for _ in range(int(times or 1))]


def local_rank() -> int:
    """The number of this process on its machine."""
    who = started()
    return int(os.environ.get("LOCAL_RANK") or 0) if who is None else who.local_rank


def processes_here() -> int:
    """How many processes of the run are on this machine, as far as the environment says."""
    who = started()
    return int(os.environ.get("WORLD_SIZE") or 1) if who is None else who.processes_here


def speaks() -> bool:
    """Whether it is this process that says what all processes of the run have to say.

    Until they have met, the first process of each machine, for a mistake may be one machine's own;
    then the first of the run.
    """
    torch = sys.modules.get("torch")
    distributed = None if torch is None else torch.distributed
    if distributed is not None and distributed.is_available() and distributed.is_initialized():
        return bool(distributed.get_rank() == 0)
    return local_rank() == 0
