"""One tiny path through all stages that tests of faults compare with and go on from."""

from __future__ import annotations

import shutil

import pytest
from stages import STAGES, Journey, write_data


@pytest.fixture(scope="session")
def whole(runner, tiny, tmp_path_factory):
    """The path without any fault."""
    folder = tmp_path_factory.mktemp("whole")
    journey = Journey(write_data(folder / "data"), tiny, folder / "path")
    for stage in STAGES:
        if stage == "compare":
            journey.make_whole()
        result = runner(*journey.words(stage))
        assert result.status == 0, result.message
    return journey


@pytest.fixture
def fresh(whole, tmp_path):
    """The same path, before its first stage."""
    return Journey(whole.data, whole.model, tmp_path / "path")


@pytest.fixture
def walked(whole, fresh):
    """The same path, walked: a copy to do something to."""
    shutil.copytree(whole.folder, fresh.folder)
    return fresh
