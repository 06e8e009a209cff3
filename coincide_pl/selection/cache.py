"""Intermediate results of a selection on disk, to go on from and to use again."""

from __future__ import annotations

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from coincide_pl.errors import FileError
from coincide_pl.files import beside
from coincide_pl.interruption import interruption

log = logging.getLogger(__name__)


class Cache:
    """A directory of arrays, each file named after what it was made from.

    A file that is damaged or made from something else counts as absent. One process writes; all
    may read.
    """

    def __init__(self, directory: Path, made_from: dict[str, Any], writes: bool = True) -> None:
        """Touches nothing yet.

        Args:
            directory: where files lie.
            made_from: everything that the arrays depend on.
            writes: whether this process saves; others leave it to the one that does.
        """
        self.directory, self.made_from, self.writes = directory, made_from, writes
        self._told = json.dumps(made_from, sort_keys=True)
        self._key = hashlib.blake2b(self._told.encode(), digest_size=8).hexdigest()

    def also(self, **made_from: Any) -> Cache:
        """A cache of what depends on more."""
        return Cache(self.directory, {**self.made_from, **made_from}, self.writes)

    def path(self, name: str) -> Path:
        """The file of a name."""
        return self.directory / f"{name}-{self._key}.safetensors"

    def load(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays saved under a name, if they are there and whole."""
        path = self.path(name)
        try:
            with safe_open(path, "np") as file:
                head = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError, OSError):
            return None
        if head.get("made_from") != self._told or head.get("digest") != _digest(arrays):
            return None
        return arrays

    def save(self, name: str, arrays: dict[str, np.ndarray]) -> None:
        """Keeps arrays under a name; written beside its place and renamed."""
        if not self.writes:
            return
        path = self.path(name)
        head = {"made_from": self._told, "digest": _digest(arrays)}
        whole = {key: np.ascontiguousarray(value) for key, value in arrays.items()}
        try:
            with interruption.held(), beside(path) as aside:
                save_file(whole, aside, head)
        except FileError as error:
            log.warning("%s; it would be computed again", error)

    def forget(self, name: str) -> None:
        """Removes what was saved under a name."""
        if self.writes:
            self.path(name).unlink(missing_ok=True)


class NoCache(Cache):
    """Keeps nothing."""

    def __init__(self) -> None:
        """Has no directory."""
        super().__init__(Path(), {}, writes=False)

    def also(self, **made_from: Any) -> Cache:
        """Nothing still."""
        return self

    def load(self, name: str) -> None:
        """Nothing is there."""
        return


def _digest(arrays: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
