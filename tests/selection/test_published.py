"""Lost if these fail: the steps as functions, light to import, with examples that run."""

import doctest
import subprocess
import sys
from importlib import import_module

import numpy as np
import pytest

from coincide_pl import selection
from coincide_pl.selection import (
    Coincide,
    Pool,
    budgets,
    density,
    greedy_mmd,
    transferability,
)
from coincide_pl.selection.steps import pick as steps

LIGHT = """
import sys
from coincide_pl.selection import pick, transferability
heavy = {"lightning", "transformers", "torchmetrics", "matplotlib"} & set(sys.modules)
print(len(sys.modules), *heavy)
"""
PUBLISHED = ["budgets", "density", "greedy_mmd", "pick", "transferability"]


def test_the_steps_are_light_to_import():
    done = subprocess.run([sys.executable, "-c", LIGHT], capture_output=True, text=True, check=True)
    count, *heavy = done.stdout.split()
    assert not heavy
    assert int(count) < 1400


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_example_of_each_step_runs(name):
    module = import_module(getattr(selection, name).__module__)
    tests = doctest.DocTestFinder(recurse=False).find(getattr(module, name), name)
    assert tests[0].examples
    assert not doctest.DocTestRunner().run(tests[0]).failed


def test_every_public_name_is_there_and_no_other():
    assert all(hasattr(selection, name) for name in selection.__all__)
    assert sorted(selection.PLACES) == sorted(selection.__all__)
    assert not hasattr(selection, "nothing")


def test_what_a_reader_studies_is_what_runs(monkeypatch):
    """`Coincide` calls the published functions, and tells what these give for its clusters."""
    random = np.random.default_rng(0)
    x = random.normal(size=(300, 24))
    x = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)
    called = set()

    def watched(name, function):
        def call(*args, **options):
            called.add(name)
            return function(*args, **options)

        return call

    for name in ("budgets", "density", "greedy_mmd"):
        monkeypatch.setattr(steps, name, watched(name, getattr(steps, name)))
    chosen = Coincide(num_clusters=6).select(Pool(range(300), {"activations": x}, {}, 2), 90)
    assert called == {"budgets", "density", "greedy_mmd"}
    columns = chosen.clusters
    np.testing.assert_array_equal(columns["density"], density(x, chosen.labels))
    given = (columns["transferability"], columns["density"], columns["size"], 90)
    np.testing.assert_array_equal(columns["selected"], budgets(*given))
    for cluster, count in enumerate(columns["selected"].tolist()):
        rows = np.flatnonzero(chosen.labels == cluster)
        picked = [row for row in chosen.indices.tolist() if chosen.labels[row] == cluster]
        if count < len(rows):
            assert rows[greedy_mmd(x[rows], count)].tolist() == picked
    assert transferability.__module__ == "coincide_pl.selection.steps.transferability"
