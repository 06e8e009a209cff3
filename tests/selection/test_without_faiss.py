"""Lost if these fail: a package that starts without Faiss, and says how to get it."""

import subprocess
import sys

import numpy as np
import pytest

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.neighbors import nearest_neighbors


def test_faiss_is_asked_for_when_it_is_needed(monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    rows = np.random.default_rng(0).normal(size=(60, 4)).astype(np.float16)
    with pytest.raises(SelectionError, match="pip install faiss-cpu"):
        nearest_neighbors(rows, 3)


def test_every_method_can_be_imported_without_it():
    code = (
        "import sys; sys.modules['faiss'] = None\n"
        "import coincide_pl.selection as room\n"
        "for name in room.__all__: getattr(room, name)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
