"""Lost if these fail: scripts of experiments that still start."""

import runpy
from pathlib import Path

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
SCRIPTS = sorted(set(EXPERIMENTS.rglob("*.py")) - set(EXPERIMENTS.glob("notebook/*.py")))
"""All but the notebook's, which test_python.py runs from top to bottom."""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_what_a_script_imports_is_there(script, monkeypatch):
    monkeypatch.syspath_prepend(script.parent)
    assert runpy.run_path(str(script))["__doc__"]
