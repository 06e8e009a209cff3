"""Lost if these fail: a run that can be stopped while it waits for processes that never come."""

from __future__ import annotations

import os
import signal

import pytest
from harness import FOREVER, All, Set

NOW = Set("coincide_pl.command.launcher:PATIENCE", 0.0)
"""A line says at once what is waited for."""


class Variables:
    """Variables of the environment, as somebody else would set them."""

    def __init__(self, **variables: str) -> None:
        self.variables = variables

    def __call__(self) -> None:
        os.environ.update(self.variables)


SECOND_NODE = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0", "NODE_RANK": "0"}
SRUN = {
    **{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2"},
    **{"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NTASKS": "2"},
    **{"SLURM_JOB_ID": "7", "SLURM_STEP_NODELIST": "localhost"},
}


@pytest.mark.parametrize(
    ("number", "variables", "options", "advice"),
    [
        (signal.SIGTERM, SECOND_NODE, ("--trainer.num_nodes=2",), "each with its NODE_RANK"),
        (signal.SIGINT, SECOND_NODE, ("--trainer.num_nodes=2",), "each with its NODE_RANK"),
        (signal.SIGUSR1, SRUN, (), "srun starts them"),
    ],
    ids=["a node that never comes", "and Ctrl-C", "a task of SLURM's that never comes"],
)
def test_a_signal_ends_the_wait(runner, walked, number, variables, options, advice):
    words = walked.words("select", "--trainer.strategy=ddp", *options)
    running = runner.start(*words, fault=All((NOW, Variables(**variables))))
    while "waiting for 1 other processes at " not in running.output.read_text():
        running.process.join(0.1)
        assert running.process.exitcode is None, running.output.read_text()
    running.send(number)
    result = running.end(FOREVER)
    assert result.status == 128 + number, result.message
    assert result.is_clean, result.message
    assert result.line == "interrupted: the same command goes on from here"
    assert advice in result.message


def test_two_processes_that_would_each_do_the_whole_run(runner, walked):
    started = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "RANK": "0", "LOCAL_RANK": "0"}
    words = walked.words("select", "--trainer.devices=1")
    result = runner(*words, fault=Variables(**started))
    assert result.status == 1, result.message
    assert "torchrun has started 2 processes, but the trainer's options make 1" in result.line


def test_a_batch_script_or_shell_of_slurm_starts_nobody(runner, walked):
    batch = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
    result = runner(*walked.words("select", "--data.fraction=0.25"), fault=Variables(**batch))
    assert result.status == 0, result.message
    assert "waiting" not in result.message
