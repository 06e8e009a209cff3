"""Lost if these fail: a trainer of as many processes as torchrun or SLURM has started."""

import os

import pytest
from lightning.pytorch.plugins.environments import LightningEnvironment

from coincide_pl.command.environments import Srun, as_started, check_settings
from coincide_pl.errors import ConfigError

STEP = {
    **{"SLURM_STEP_ID": "1", "SLURM_STEP_NUM_TASKS": "3", "SLURM_STEP_TASKS_PER_NODE": "2,1"},
    **{"SLURM_PROCID": "2", "SLURM_NODEID": "1", "SLURM_LOCALID": "0", "SLURM_NTASKS": "3"},
    **{
        "SLURM_STEP_NODELIST": "gpu[07-08]",
        "SLURM_NODELIST": "gpu[01-08]",
        "SLURM_JOB_ID": "1234567",
    },
}


def test_srun_s_numbers_are_the_trainer_s(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(STEP))
    found = as_started({"devices": "auto", "num_nodes": 1, "plugins": None})
    (environment,) = found.pop("plugins")
    assert found == {"devices": 1, "num_nodes": 2}
    assert isinstance(environment, Srun)
    assert not environment.auto_requeue
    assert (environment.world_size(), environment.global_rank()) == (3, 2)
    assert environment.main_address == "gpu07"
    other = {**STEP, "SLURM_STEP_ID": "2"}
    first = environment.main_port
    monkeypatch.setattr(os, "environ", other)
    assert first != environment.main_port  # two steps of a job can run beside each other
    assert {first, environment.main_port} <= set(range(15000, 31000))


def test_what_the_user_says_stays_and_is_looked_at(monkeypatch):
    monkeypatch.setattr(os, "environ", dict(STEP))
    own = LightningEnvironment()
    assert as_started({"plugins": [own]}) == {}
    assert as_started({"devices": 2, "num_nodes": 2}).keys() == {"plugins"}
    check_settings(1, 2)
    with pytest.raises(ConfigError, match=r"trainer\.devices: is 2, but srun has started 1"):
        check_settings(2, 2)
    with pytest.raises(ConfigError, match=r"trainer\.num_nodes: is 3, but srun has used 2"):
        check_settings(1, 3)


def test_a_batch_script_starts_nobody(monkeypatch):
    monkeypatch.setattr(os, "environ", {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "3"})
    (environment,) = as_started({})["plugins"]
    assert isinstance(environment, LightningEnvironment)
    monkeypatch.setattr(os, "environ", {})
    assert as_started({}) == {}
