"""Results of a selection's steps on disk, to be used again and to go on from."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from coincide_pl.errors import FileError
from coincide_pl.files import beside, sweep
from coincide_pl.interruption import interruption
from coincide_pl.processes import group_size
from coincide_pl.selection.arrays.dtypes import Arrays

log = logging.getLogger(__name__)

KEEP_EVERY = 60.0
"""Seconds between the states that an interrupted step goes on from."""


class Checkpointer(Protocol):
    """Where an interrupted step leaves its state, and finds it again."""

    def load(self, name: str) -> Arrays | None:
        """The arrays saved under a name, if there are any."""

    def save(self, name: str, arrays: Arrays) -> None:
        """Keep arrays under a name; what was there is replaced."""


class Cache:
    """A directory of arrays, each file named after what it was made from.

    A file that is damaged or made from something else counts as absent. The first process writes;
    all may read.
    """

    def __init__(self, directory: Path, made_from: dict[str, Any]) -> None:
        """Names the folder; nothing is read or made yet.

        Args:
            directory: where files lie.
            made_from: everything that the arrays depend on.
        """
        self.directory, self.made_from = directory, made_from
        self._made_from = json.dumps(made_from, sort_keys=True)
        self._key = hashlib.blake2b(self._made_from.encode(), digest_size=8).hexdigest()

    def also(self, depends_on: dict[str, Any]) -> Cache:
        """A cache of what depends on more."""
        return Cache(self.directory, {**self.made_from, **depends_on})

    def once(
        self, name: str, depends_on: dict[str, Any], compute: Callable[[Checkpointer], Arrays]
    ) -> Arrays:
        """What a step came to: from its file where it was done before, else computed and kept.

        Args:
            name: of the step.
            depends_on: whatever changes the result, beside what this cache is made from.
            compute: the step; where it is interrupted, it may leave its state in what it is given.
        """
        kept = self.also(depends_on)
        found = kept.load(name)
        if found is None:
            found = compute(kept)
            kept.save(name, found)
        return found

    def path(self, name: str) -> Path:
        """The file of a name."""
        return self.directory / f"{name}-{self._key}.safetensors"

    def load(self, name: str) -> Arrays | None:
        """The arrays saved under a name, if they are there and whole."""
        if group_size()[1] == 0:
            with suppress(OSError):  # a killed run may have left what this one need not write again
                sweep(self.directory)
        try:
            with safe_open(self.path(name), "np") as file:
                head = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError, OSError):
            return None
        if head.get("made_from") != self._made_from or head.get("digest") != _digest(arrays):
            return None
        return arrays

    def save(self, name: str, arrays: Arrays) -> None:
        """Keeps arrays under a name; written beside its place and renamed."""
        if group_size()[1] != 0:
            return
        head = {"made_from": self._made_from, "digest": _digest(arrays)}
        whole = {key: np.asarray(value, order="C") for key, value in arrays.items()}
        try:
            with interruption.held(), beside(self.path(name)) as aside:
                save_file(whole, aside, head)
        except FileError as error:
            log.warning("%s; it would be computed again", error)


class NoCache(Cache):
    """A cache that keeps nothing, for pools that lie on no disk."""

    def __init__(self) -> None:
        """Needs no folder."""
        super().__init__(Path(), {})

    def also(self, depends_on: dict[str, Any]) -> Cache:
        """The same: nothing depends on what is not kept."""
        return self

    def load(self, name: str) -> None:
        """Says that nothing is there."""

    def save(self, name: str, arrays: Arrays) -> None:
        """Forgets the arrays."""


def _digest(arrays: Arrays) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
