"""Lightning's trainer under torchrun and SLURM: the numbers of processes are those started."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from lightning.fabric.plugins.environments import (
    ClusterEnvironment,
    LightningEnvironment,
    TorchElasticEnvironment,
)

from coincide_pl import ranks
from coincide_pl.command.lightning_internals import SlurmEnvironment
from coincide_pl.errors import ConfigError

PORTS = range(15000, 31000)
"""For the meeting of a job's processes; below those that systems give away by themselves."""


class Torchrun(TorchElasticEnvironment):
    """Processes that torchrun has started; machines may have different numbers of them."""

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Refuses options that say something else than torchrun."""
        check_settings(num_devices, num_nodes)


class Srun(SlurmEnvironment):
    """Processes that srun has started; machines may have different numbers of them.

    Lightning's own way to end before a job's time is over is off: it saves a checkpoint inside an
    optimizer step, and where it is not looked for. The command ends by itself when it gets SLURM's
    signal, with a checkpoint, and the batch script starts it again.
    """

    def __init__(self) -> None:
        """Leaves the requeueing to the batch script."""
        super().__init__(auto_requeue=False)

    @property
    def main_address(self) -> str:
        """The first machine of the step, which may have fewer than the job."""
        nodes = os.environ["SLURM_STEP_NODELIST"]
        return os.environ.get("MASTER_ADDR") or self.resolve_root_node_address(nodes)

    @property
    def main_port(self) -> int:
        """A port of the step's own, so that the steps of a job can run beside each other."""
        if "MASTER_PORT" in os.environ:
            return int(os.environ["MASTER_PORT"])
        job, step = int(os.environ["SLURM_JOB_ID"]), int(os.environ["SLURM_STEP_ID"])
        return PORTS[(31 * job + step) % len(PORTS)]

    def world_size(self) -> int:
        """Processes of the step."""
        return int(os.environ["SLURM_STEP_NUM_TASKS"])

    def validate_settings(self, num_devices: int, num_nodes: int) -> None:
        """Refuses options that say something else than srun."""
        check_settings(num_devices, num_nodes)


def as_started(options: Mapping[str, Any]) -> dict[str, Any]:
    """What a trainer's options must be for the processes that were started, where they leave it.

    Args:
        options: of the trainer; one that names a cluster environment decides by itself.

    Returns:
        `plugins` with the cluster environment; `devices` and `num_nodes` where they are the default
        and somebody else has started several processes.
    """
    given = options.get("plugins") or []
    plugins = given if isinstance(given, list) else [given]
    if any(isinstance(one, ClusterEnvironment) for one in plugins):
        return {}
    who = ranks.started()
    if who is None:  # variables of SLURM alone start nobody
        slurm = "SLURM_NTASKS" in os.environ
        return {"plugins": [*plugins, LightningEnvironment()]} if slurm else {}
    found: dict[str, Any] = {"plugins": [*plugins, Torchrun() if who.by == "torchrun" else Srun()]}
    if who.processes > 1:
        if options.get("devices", "auto") == "auto":
            found["devices"] = who.processes_here
        if options.get("num_nodes", 1) == 1:
            found["num_nodes"] = who.nodes
    return found


def check_settings(num_devices: int, num_nodes: int) -> None:
    """Refuses options of the trainer that do not fit the processes that were started.

    Args:
        num_devices: processes of this machine, by the options.
        num_nodes: machines of the run, by the options.

    Raises:
        ConfigError: naming the option.
    """
    who = ranks.started()
    if who is None:
        return
    for option, value, there, what in (
        ("devices", num_devices, who.processes_here, "process(es) on this machine"),
        ("num_nodes", num_nodes, who.nodes, "machine(s)"),
    ):
        if value != there:
            where = f"started {there} {what}" if option == "devices" else f"used {there} {what}"
            error = ConfigError(
                f"trainer.{option}: is {value}, but {who.by} has {where}; leave the option out, "
                f"and it is what {who.by} says"
            )
            error.shared = who.local_rank != 0
            raise error
