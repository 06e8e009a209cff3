"""Lost if these fail: `import coincide_pl` in a notebook, quick, with all that its users need."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import coincide_pl

HEAVY = {"lightning", "transformers", "torchmetrics", "matplotlib"}


def loaded(code):
    """Names of all modules that some code loads."""
    code += "\nimport sys\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return {*done.stdout.split()}


def test_the_package_alone_loads_nothing():
    assert len(loaded("import coincide_pl; dir(coincide_pl)")) < 100


@pytest.mark.parametrize("name", coincide_pl.__all__)
def test_each_public_name_is_there(name):
    assert name in dir(coincide_pl)
    found = getattr(coincide_pl, name)
    assert found.__name__ == name
    assert found.__doc__


def test_a_wrong_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Coincid'"):
        _ = coincide_pl.Coincid


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(coincide_pl.__file__).read_text())
    (block,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = [alias.name for line in block.body for alias in line.names]
    assert sorted(seen) == sorted(coincide_pl.__all__)


@pytest.mark.parametrize(
    "code",
    [
        "from coincide_pl.selection import pick, transferability",
        "from coincide_pl import Coincide, Selection, load_signals",
    ],
)
def test_choosing_from_arrays_loads_no_framework(code):
    names = loaded(code)
    assert not HEAVY & names
    assert len(names) < 1400
