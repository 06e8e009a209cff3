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
from coincide_pl.processes import everywhere, group_size
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

    def load_share(self, name: str, share: slice) -> Arrays | None:
        """Some of the rows that processes saved under a name, if all of these are there."""

    def save_share(self, name: str, share: slice, arrays: Arrays) -> None:
        """Keep this process's share of the rows of arrays that belong together."""

    def forget(self, name: str) -> None:
        """Delete what was saved under a name."""


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

        All processes must call, and all compute where one of them does not find the file.

        Args:
            name: of the step.
            depends_on: whatever changes the result, beside what this cache is made from.
            compute: the step; where it is interrupted, it may leave its state in what it is given.
        """
        kept = self.also(depends_on)
        found = kept.load(name)
        if not everywhere(found is not None) or found is None:
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
        return self._read(self.path(name))

    def _read(self, path: Path) -> Arrays | None:
        try:
            with safe_open(path, "np") as file:
                head = file.metadata() or {}
                arrays = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError, OSError):
            return None
        if head.get("made_from") != self._made_from or head.get("digest") != _digest(arrays):
            return None
        return arrays

    def save(self, name: str, arrays: Arrays) -> None:
        """Keeps arrays under a name; written beside its place and renamed."""
        if group_size()[1] == 0:
            self._write(self.path(name), arrays)

    def load_share(self, name: str, share: slice) -> Arrays | None:
        """Some of the rows that processes saved under a name, whatever share each of them had.

        Args:
            name: of the arrays.
            share: which rows.

        Returns:
            These rows of each array; None where one is missing or damaged.
        """
        files = []
        for path in self.directory.glob(f"{name}.*-{self._key}.safetensors"):
            rows = path.name.removeprefix(f"{name}.").split("-")[:2]
            files.append((int(rows[0]), int(rows[1]), path))
        found: list[Arrays] = []
        at, last = share.start, share.stop
        for start, stop, path in sorted(files):
            if start <= at < min(stop, last) or (share.start == last and not found):
                arrays = self._read(path)
                if arrays is not None:
                    here = slice(at - start, max(at, min(stop, last)) - start)
                    found.append({key: value[here] for key, value in arrays.items()})
                    at = max(at, min(stop, last))
        if at < share.stop or not found:
            return None
        return {key: np.concatenate([one[key] for one in found]) for key in found[0]}

    def save_share(self, name: str, share: slice, arrays: Arrays) -> None:
        """Keeps this process's rows of arrays of which every process has some.

        Args:
            name: of the arrays.
            share: which rows these are.
            arrays: each [rows of the share, ...].
        """
        rows = f"{name}.{share.start}-{share.stop}"
        self._write(self.directory / f"{rows}-{self._key}.safetensors", arrays)

    def forget(self, name: str) -> None:
        """Deletes what was saved under a name, shares of all processes too."""
        if group_size()[1] == 0:
            shares = self.directory.glob(f"{name}.*-{self._key}.safetensors")
            for path in (self.path(name), *shares):
                with suppress(OSError):  # not there, or a folder that can't be written
                    path.unlink()

    def _write(self, path: Path, arrays: Arrays) -> None:
        head = {"made_from": self._made_from, "digest": _digest(arrays)}
        whole = {key: np.asarray(value, order="C") for key, value in arrays.items()}
        try:
            with interruption.held(), beside(path) as aside:
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

    def load_share(self, name: str, share: slice) -> None:
        """Says that nothing is there."""

    def save_share(self, name: str, share: slice, arrays: Arrays) -> None:
        """Forgets the arrays."""

    def forget(self, name: str) -> None:
        """Has nothing to delete."""


def _digest(arrays: Arrays) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name} {array.dtype} {array.shape}".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()
