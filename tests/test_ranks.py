"""Lost if these fail: processes that know their place, whoever has started them."""

import os

import pytest

from coincide_pl import ranks
from coincide_pl.ranks import Started, started, tasks_per_node

TORCHRUN = {
    **{"TORCHELASTIC_RUN_ID": "none", "RANK": "2", "LOCAL_RANK": "0", "WORLD_SIZE": "3"},
    **{"LOCAL_WORLD_SIZE": "1", "GROUP_RANK": "1", "GROUP_WORLD_SIZE": "2"},
}
JOB = {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "3", "SLURM_PROCID": "0", "SLURM_LOCALID": "0"}
STEP = {
    **JOB,
    **{"SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1"},
    **{"SLURM_PROCID": "2", "SLURM_NODEID": "1"},
}
SHELL = {**STEP, "SLURM_STEP_NUM_TASKS": "1", "SLURM_STEP_TASKS_PER_NODE": "1"}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, None),
        ({"LOCAL_RANK": "1", "WORLD_SIZE": "2"}, None),
        (TORCHRUN, Started("torchrun", 3, 2, 1, 2, 0)),
        ({**STEP, **TORCHRUN}, Started("torchrun", 3, 2, 1, 2, 0)),
        (STEP, Started("srun", 3, 2, 1, 2, 0)),
        (JOB, None),
        (SHELL, None),
        ({**STEP, "LOCAL_RANK": "1"}, None),
    ],
    ids=["alone", "ours", "torchrun", "in SLURM", "srun", "batch", "shell", "ours in SLURM"],
)
def test_who_has_started_the_processes(monkeypatch, variables, expected):
    monkeypatch.setattr(os, "environ", variables)
    assert started() == expected
    assert ranks.processes_here() == int(variables.get("WORLD_SIZE", 1) if expected is None else 1)


def test_slurm_s_numbers_of_tasks():
    assert tasks_per_node("2(x3),1") == [2, 2, 2, 1]
    assert tasks_per_node("8") == [8]
