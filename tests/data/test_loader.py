"""Lost if these fail: more worker processes than a machine has cores for."""

import os

import pytest

from coincide_pl.data.loader import usable_workers


@pytest.mark.parametrize(("asked", "used"), [(0, 0), (1, 1), (3, 3), (4, 3), (64, 3)])
def test_there_are_no_more_workers_than_cores(monkeypatch, caplog, asked, used):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1, 5}, raising=False)
    caplog.set_level("INFO", logger="coincide_pl")
    usable_workers.cache_clear()
    assert usable_workers(asked) == used
    assert ("one for each core" in caplog.text) == (asked > used)
    usable_workers.cache_clear()
