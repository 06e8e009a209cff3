"""Fill a store of signals, from any number of processes, whatever ends them.

Each process writes a shard of its own (`shards`), so no file has two writers and no lock is needed;
the next run, of as many processes or of others, begins shards of its own and goes on with the rows
that no journal names. When no row is missing, the shards are sorted into arrays (`sealing`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from coincide_pl.data.shards.places import is_url
from coincide_pl.errors import SignalsError
from coincide_pl.files import reason
from coincide_pl.signals.manifest import (
    MANIFEST,
    Contents,
    Manifest,
    check_arrays,
    read_manifest,
    write_manifest,
)
from coincide_pl.signals.remote import Remote, Sender
from coincide_pl.signals.sealing import remove_shards, seal
from coincide_pl.signals.shards import FOLDER, Shard, rows_done

SYNC_EVERY = 5.0
"""Seconds between the notes of what is done, each after the rows themselves are on disk."""


class SignalsWriter:
    """Fills a store, or goes on filling one made from the same things."""

    def __init__(self, directory: str | Path, manifest: Manifest, rank: int = 0) -> None:
        """Opens a store that `create` has made.

        Args:
            directory: the store; a folder, or an address that fsspec opens.
            manifest: as given to `create`.
            rank: this process; each writes files of its own, also where several have one rank.
        """
        self.manifest, self.rank = manifest, rank
        self._folder = Path(directory)
        self._sender: Sender | None = None
        self._kept: TemporaryDirectory[str] | None = None
        self._shard: Shard | None = None
        self._noted = time.monotonic()
        if is_url(str(directory)):
            remote = Remote(str(directory))
            self._sender = Sender(remote)
            with remote.opened() as folder:
                sealed = read_manifest(folder)[1] is not None
            done = None if sealed else remote.rows_done(manifest)
        else:
            sealed = read_manifest(self._folder)[1] is not None
            done = None if sealed else rows_done(self._folder, manifest)
        self.done = np.ones(manifest.num_rows, bool) if done is None else done

    @staticmethod
    def create(directory: str | Path, manifest: Manifest) -> None:
        """Make an empty store, or check that the one there was made from the same things.

        Raises:
            SignalsError: another store, or something else, is there.
        """
        if is_url(str(directory)):
            remote = Remote(str(directory))
            with remote.opened() as folder:
                if (folder / MANIFEST).exists():
                    if _same(remote.url, folder, manifest) is not None:
                        remote.remove_shards()
                    return
                write_manifest(folder, manifest, None)
                remote.remove_shards()
                remote.send(folder / MANIFEST, MANIFEST)
            return
        directory = Path(directory)
        if (directory / MANIFEST).exists():
            contents = _same(str(directory), directory, manifest)
            if contents is not None:
                check_arrays(directory, manifest, contents)
                remove_shards(directory)
            return
        if (directory.parent / MANIFEST).exists():
            outer, _ = read_manifest(directory.parent)
            if directory.name in outer.signals:
                raise SignalsError(
                    f"{directory}: names a signal of the store {directory.parent}; name another"
                )
        try:
            remove_shards(directory)
            (directory / FOLDER).mkdir(parents=True)
        except OSError as error:
            raise SignalsError(f"{directory}: can't be written ({reason(error)})") from error
        write_manifest(directory, manifest, None)

    def write(self, rows: np.ndarray, values: Mapping[str, np.ndarray]) -> None:
        """Write some rows of every signal, but for those that were done before; note them as done.

        Args:
            rows: int64 [B].
            values: [B, ...] by signal.

        Raises:
            SignalsError: a value is not finite, rows are of another shape, or the disk is full.
        """
        for name, signal in self.manifest.signals.items():
            if values[name].shape != (wanted := (len(rows), *signal.shape)):
                raise SignalsError(
                    f"{signal.class_path}: its rows for {len(rows)} samples have the shape "
                    f"{list(values[name].shape)}, and its `shape` says {list(wanted)}"
                )
        new = ~self.done[rows]
        rows = rows[new].astype(np.int64)
        arrays = {
            name: np.ascontiguousarray(values[name][new], signal.dtype)
            for name, signal in self.manifest.signals.items()
        }
        for name, array in arrays.items():
            if not np.isfinite(array).all():
                bad = rows[~np.isfinite(array.reshape(len(rows), -1)).all(1)]
                raise SignalsError(
                    f"{name} of record {bad[0]} holds NaN or infinity: the model overflows "
                    "(try another dtype or precision) or its weights are broken"
                )
        if not len(rows):
            return
        if self._sender is not None and self._kept is None:
            self._kept = TemporaryDirectory(prefix="coincide-signals-")
            self._folder = Path(self._kept.name)
            (self._folder / FOLDER).mkdir()
        if self._shard is None:
            self._shard = Shard(self._folder, self.manifest, self.rank)
        try:
            self._shard.append(rows, arrays)
        except BaseException:
            self.close()  # what follows in its files would lie at other places than the journal's
            raise
        if time.monotonic() - self._noted > SYNC_EVERY:
            self._shard.note()
            self._noted = time.monotonic()
            if self._sender is not None and self._sender.keep(self._shard, last=False):
                self._shard = None

    def close(self) -> None:
        """Note what is written, and close; a second call does nothing."""
        shard, self._shard = self._shard, None
        if shard is not None:
            try:
                shard.note()
                if self._sender is not None:
                    self._sender.keep(shard, last=True)
            finally:
                shard.close()
        if self._kept is not None:
            self._kept.cleanup()
            self._kept = None

    @staticmethod
    def finish(directory: str | Path) -> None:
        """Once no process writes any more: check that all rows are there, and seal the store.

        Raises:
            SignalsError: rows are missing.
        """
        if not is_url(str(directory)):
            directory = Path(directory)
            manifest, contents = read_manifest(directory)
            if contents is None:
                write_manifest(directory, manifest, seal(directory, manifest))
            remove_shards(directory)
            return
        remote = Remote(str(directory))
        with remote.opened() as folder:
            manifest, contents = read_manifest(folder)
            if contents is None:
                remote.fetch_shards(folder)
                contents = seal(folder, manifest, remote.url)
                for path, _ in contents.paths(folder):
                    remote.send(path, path.name)
                write_manifest(folder, manifest, contents)
                remote.send(folder / MANIFEST, MANIFEST)
        remote.remove_shards()


def _same(place: str, folder: Path, manifest: Manifest) -> Contents | None:
    """What a store holds if it is sealed, once it is known to be made from the same things.

    Raises:
        SignalsError: it was made from something else.
    """
    old, contents = read_manifest(folder)
    if different := old.differences(manifest):
        raise SignalsError(
            f"{place}: its signals come from {'; '.join(different)}: "
            "name another directory in data.signals, or delete this one"
        )
    return contents
