"""Faiss, which an installation may lack: imported when neighbors are first searched."""

from __future__ import annotations

from types import ModuleType

from coincide_pl.errors import SelectionError


def load_faiss() -> ModuleType:
    """The Faiss library.

    Raises:
        SelectionError: it is not installed.
    """
    try:
        import faiss
    except ImportError as error:
        raise SelectionError(
            f"this method needs Faiss ({error}): pip install faiss-cpu, or faiss-gpu "
            "where there is an NVIDIA GPU"
        ) from error
    return faiss
