"""Stores at addresses that fsspec opens, such as `s3://bucket/signals`.

Such places take whole files only, and every read from them takes long. So all is done in local
files: a process keeps its shard in a temporary folder (`TMPDIR` says where) and sends it now and
then, whole, until it holds `PIECE_BYTES` and the next one begins; sealing fetches all shards; and a
sealed store is read through a copy in the cache, as selection reads its arrays tens of times.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import numpy.typing as npt

from coincide_pl.data.shards.places import file_system, is_url
from coincide_pl.errors import SignalsError
from coincide_pl.files import beside, is_as_it_was, reason
from coincide_pl.owners import OWNER, STALE, Claim, Owner
from coincide_pl.signals.manifest import MANIFEST, Manifest, read_manifest
from coincide_pl.signals.shards import FOLDER, JOURNAL, VALUES, Shard, rows_done

PIECE_BYTES = 64 << 20
"""Bytes of a shard after which the next one begins."""
SEND_EVERY = 60.0
"""Seconds after which what was written since is sent, though the shard is small."""
SETTLE = 2.0
"""Seconds after which of several claims that were put at once only the last is there."""
CACHE = "~/.cache/coincide_pl"
"""Folder below which copies are kept."""


class Remote:
    """A store at an address."""

    def __init__(self, url: str) -> None:
        """Finds what opens the address.

        Args:
            url: of the store.

        Raises:
            DataError: what opens such addresses is not installed.
        """
        self.url = url.rstrip("/")
        self.system, self.path = file_system(self.url)

    @contextmanager
    def _doing(self, what: str, name: str = "") -> Iterator[None]:
        try:
            yield
        except Exception as error:  # file systems raise what their servers' clients do
            place = f"{self.url}/{name}".rstrip("/")
            raise SignalsError(f"{place}: can't be {what} ({reason(error)})") from error

    def read(self, name: str) -> str | None:
        """The text of a small file; None where it is not there."""
        with self._doing("read", name):
            try:
                content: bytes = self.system.cat_file(f"{self.path}/{name}")
            except FileNotFoundError:
                return None
            return content.decode(errors="replace")

    def write(self, name: str, text: str) -> None:
        """Writes a small file."""
        with self._doing("written", name):
            self.system.makedirs(self.path, exist_ok=True)
            self.system.pipe_file(f"{self.path}/{name}", text.encode())

    def fetch(self, name: str, target: Path) -> None:
        """Copies a file to a local place, piece by piece."""
        with self._doing("read", name), beside(target) as aside:
            self.system.get_file(f"{self.path}/{name}", str(aside))

    def send(self, file: Path, name: str) -> None:
        """Copies a local file here."""
        with self._doing("written", name):
            self.system.makedirs(f"{self.path}/{name}".rpartition("/")[0], exist_ok=True)
            self.system.put_file(str(file), f"{self.path}/{name}")

    def remove(self, name: str) -> None:
        """Removes a file that may be there."""
        with self._doing("written", name), suppress(FileNotFoundError):
            self.system.rm_file(f"{self.path}/{name}")

    def shards(self) -> dict[str, int]:
        """The files of all shards, each with its size."""
        with self._doing("listed", FOLDER):
            self.system.invalidate_cache()
            try:
                found = self.system.find(f"{self.path}/{FOLDER}", detail=True)
            except FileNotFoundError:
                return {}
            return {name.rpartition("/")[2]: int(about["size"]) for name, about in found.items()}

    @contextmanager
    def opened(self) -> Iterator[Path]:
        """A temporary folder with the manifest, if there is one, and a place for shards."""
        with TemporaryDirectory(prefix="coincide-signals-") as name:
            folder = Path(name)
            (folder / FOLDER).mkdir()
            if (text := self.read(MANIFEST)) is not None:
                (folder / MANIFEST).write_text(text)
            yield folder

    def rows_done(self, manifest: Manifest) -> npt.NDArray[np.bool_]:
        """Which rows [N] the shards hold; only journals are fetched."""
        with self.opened() as folder:
            for name, size in self.shards().items():
                if name.endswith(JOURNAL):
                    self.fetch(f"{FOLDER}/{name}", folder / FOLDER / name)
                elif name.endswith(VALUES):  # its size says how many rows it holds
                    (folder / FOLDER / name).touch()
                    os.truncate(folder / FOLDER / name, size)
            return rows_done(folder, manifest)

    def fetch_shards(self, folder: Path) -> None:
        """Copies all shards to a local folder."""
        for name in self.shards():
            self.fetch(f"{FOLDER}/{name}", folder / FOLDER / name)

    def remove_shards(self) -> None:
        """Removes all shards, the journals first: what no journal names was never written."""
        for name in sorted(self.shards(), key=lambda name: not name.endswith(JOURNAL)):
            self.remove(f"{FOLDER}/{name}")


class Sender:
    """Sends a process's shards."""

    def __init__(self, remote: Remote) -> None:
        """Has sent nothing yet.

        Args:
            remote: where to.
        """
        self.remote = remote
        self._sent = time.monotonic()

    def keep(self, shard: Shard, last: bool) -> bool:
        """Sends a shard when it is time to.

        Args:
            shard: with a journal that names what was written.
            last: whether nothing will follow.

        Returns:
            Whether the shard is full: it is closed then, and gone here.
        """
        full = shard.size >= PIECE_BYTES
        if not (last or full or time.monotonic() - self._sent > SEND_EVERY):
            return False
        for path in shard.paths:  # the journal comes last
            self.remote.send(path, f"{FOLDER}/{path.name}")
        self._sent = time.monotonic()
        if full:
            shard.close()
            for path in shard.paths:
                path.unlink()
        return full


def local_copy(url: str, cache: str | Path = CACHE) -> Path:
    """The local copy of a sealed store, made or brought up to date.

    Args:
        url: of the store, or of the store and one of its signals.
        cache: folder below which copies are kept; nothing there is ever removed.

    Returns:
        the folder, or the folder and the signal.

    Raises:
        SignalsError: missing, unfinished, or changed since it was written.
    """
    remote, only = Remote(url), ""
    text = remote.read(MANIFEST)
    if text is None:
        parent, _, only = remote.url.rpartition("/")
        remote = Remote(parent)
        text = remote.read(MANIFEST)
    if text is None:
        raise SignalsError(f"{url}: no signals here; make them with `coincide predict`")
    digest = hashlib.blake2b(remote.url.encode(), digest_size=8).hexdigest()
    name = remote.url.rpartition("/")[2]
    folder = Path(cache).expanduser() / "signals" / digest / name
    with remote.opened() as opened:
        manifest, contents = read_manifest(opened)
    if contents is None:
        missing = int((~remote.rows_done(manifest)).sum())
        raise SignalsError(
            f"{url}: incomplete, {missing} of {manifest.num_rows} rows are missing; "
            "run the same `coincide predict` again to go on"
        )
    for path, digest in contents.paths(folder):
        if path.is_file() and is_as_it_was(path, digest):
            continue
        remote.fetch(path.name, path)
        if not is_as_it_was(path, digest):
            raise SignalsError(
                f"{remote.url}/{path.name}: changed since it was written; delete {remote.url} and "
                "predict again"
            )
    with beside(folder / MANIFEST) as aside:
        aside.write_text(text)
    return folder / only if only else folder


class RemoteOwner(Owner):
    """Keeps a store at an address to one run.

    Nothing there is made only if it is not there already: so each who finds the place free puts a
    claim, waits, and looks whose claim has stayed. Signs of life are times by the owner's clock.
    """

    def __init__(self, url: str) -> None:
        """Takes the store for this process.

        Args:
            url: of the store.

        Raises:
            FileError: another process writes there.
            SignalsError: nobody can.
        """
        self._directory, self._claim = url, Claim.own()
        self._remote = Remote(url)
        self._take()

    def _put(self) -> bool:
        if self._found() is not None:
            return False
        self._beat()
        time.sleep(SETTLE)
        found = self._found()
        return found is not None and found[0] == self._claim.text

    def _found(self) -> tuple[str, float] | None:
        content = self._remote.read(OWNER)
        if content is None:
            return None
        text, _, beat = content.partition("\n")
        return text, time.time() - float(beat or 0) if beat.replace(".", "").isdigit() else STALE

    def _beat(self) -> None:
        self._remote.write(OWNER, f"{self._claim.text}\n{time.time()}")

    def _remove(self, text: str) -> None:
        self._remote.remove(OWNER)

    def _free(self) -> None:
        self._remote.remove(OWNER)


def owner(directory: str | Path) -> Owner:
    """Takes an output directory, or an address, for this process; see `Owner`."""
    return RemoteOwner(str(directory)) if is_url(str(directory)) else Owner(directory)
