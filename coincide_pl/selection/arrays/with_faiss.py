"""Faiss, which an installation may lack: imported when clusters or neighbors are first computed."""

from __future__ import annotations

import contextlib
import io
from types import ModuleType

from coincide_pl.errors import SelectionError


def load_faiss() -> ModuleType:
    """The Faiss library, with its `contrib.clustering`.

    Raises:
        SelectionError: it is not installed.
    """
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that scipy, not needed, is away
            import faiss.contrib.clustering
    except ImportError as error:
        raise SelectionError(
            f"clusters and neighbors need Faiss ({error}): pip install faiss-cpu, or faiss-gpu "
            "where there is an NVIDIA GPU"
        ) from error
    return faiss
