"""Write files that are whole or not there, whatever happens."""

from __future__ import annotations

import glob
import hashlib
import itertools
import os
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import SafetensorError

from coincide_pl.errors import FileError
from coincide_pl.interruption import interruption

if TYPE_CHECKING:
    from lightning import Trainer

PART = ".part"
"""Ends the name of what is still being written, after the place and the process that write."""
ABANDONED = 7 * 24 * 3600.0
"""Seconds after which a file that is still being written elsewhere, and did not change, is left."""
RUN = secrets.token_hex(4)
"""Tells this process from earlier ones that had its number."""
UNFINISHED = re.compile(rf"\.([0-9a-f]{{12}})\.(\d+)-([0-9a-f]+)-\d+(\.\w+)?{re.escape(PART)}$")
"""The end of such a name: place, process, run, number of the write, and perhaps what it is."""
_writes = itertools.count()
UNUSABLE = (ArithmeticError, AttributeError, LookupError, RecursionError, TypeError, ValueError)
"""Exceptions that say that a text is not the JSON or YAML that it was taken for."""


@contextmanager
def beside(target: str | Path) -> Iterator[Path]:
    """A path to write to, a file or a directory; after the block it is at `target`, and on disk.

    What killed processes left in the folder is removed.

    Args:
        target: where it belongs; what is there is replaced.

    Raises:
        FileError: it can't be written; what was at `target` is still there.
    """
    target = Path(target).expanduser()
    aside = unfinished(target)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        sweep(target.parent)
        yield aside
        with interruption.held():
            _put(aside, target)
    except (OSError, SafetensorError) as error:
        raise FileError(f"{target}: can't be written ({reason(error)})") from error
    finally:
        for path in target.parent.glob(f"{glob.escape(aside.stem)}.*"):
            _remove(path)


def check_replaced(target: str | Path, *marks: str) -> None:
    """Refuse to put a folder in the place of anything but an empty folder or one of its kind.

    Args:
        target: where the folder belongs.
        marks: names of files, one of which each folder of its kind has.

    Raises:
        FileError: something else is there, which would be lost.
    """
    path = Path(target).expanduser()
    own = path.is_dir() and any((path / mark).is_file() for mark in marks)
    if path.exists() and not own and not (path.is_dir() and not any(path.iterdir())):
        raise FileError(f"{target}: holds something else, which would be lost; name another folder")


def unfinished(target: Path) -> Path:
    """A path beside a file for writing it, which no other write has, here or elsewhere."""
    own = f"{place()}.{os.getpid()}-{RUN}-{next(_writes)}"
    return target.with_name(f".{target.name}.{own}{PART}")


@cache
def place() -> str:
    """Tell where process numbers are this process's own: 12 digits that hold for one container.

    Containers may share a folder and a host name and still each count their processes from 1.
    """
    known = [socket.gethostname()]
    with suppress(OSError):
        known.append(Path("/proc/sys/kernel/random/boot_id").read_text())
    with suppress(OSError):
        known.append(os.readlink("/proc/self/ns/pid"))
    return hashlib.blake2b("\0".join(known).encode(), digest_size=6).hexdigest()


def _put(aside: Path, target: Path) -> None:
    for path in [*aside.rglob("*"), aside]:
        _to_disk(path)
    if aside.is_dir() and target.exists():  # a directory with files in it is never replaced
        old = aside.with_suffix(f".old{PART}")
        os.replace(target, old)
        os.replace(aside, target)
        _remove(old)
    else:
        os.replace(aside, target)
    _to_disk(target.parent)


def write_text(path: str | Path, pieces: Iterable[str]) -> None:
    """Write a text file beside its place, then put it there."""
    with beside(path) as aside, aside.open("w", encoding="utf-8") as file:
        file.writelines(pieces)


@contextmanager
def reading(path: str | Path, advice: str) -> Iterator[None]:
    """Where a file turns out not to hold what it should, name it in one line, and what to do.

    Args:
        path: the file that is read and understood in the block.
        advice: what mends it, such as "run `coincide test` again".

    Raises:
        FileError: the file can't be read, or its content is not what the block makes of it.
    """
    try:
        yield
    except OSError as error:
        raise FileError(f"{path}: can't be read ({reason(error)}); {advice}") from error
    except UNUSABLE as error:
        raise FileError(f"{path}: damaged; {advice}") from error


def append(path: Path, text: str) -> None:
    """Write some lines at the end of a file, all of them or none; a line that was cut is ended.

    Raises:
        FileError: it can't be written.
    """
    with interruption.held():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a+b", buffering=0) as file:
                size = file.seek(0, os.SEEK_END)
                cut = b"\n" if size and os.pread(file.fileno(), 1, size - 1) != b"\n" else b""
                try:
                    write_all(file.fileno(), cut + text.encode())
                except OSError:
                    file.truncate(size)
                    raise
        except OSError as error:
            raise FileError(f"{path}: can't be written ({reason(error)})") from error


def write_all(file: int, content: bytes) -> None:
    """Write all of some bytes, also where the disk takes few at once.

    Raises:
        OSError: the disk takes no more.
    """
    while content:
        content = content[os.write(file, content) :]


def content_digest(path: Path) -> str:
    """A digest of a file, 32 hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, hashlib.blake2b).hexdigest()[:32]


def is_as_it_was(path: Path, digest: str) -> bool:
    """Whether a file still has the digest that it had when it was written.

    The whole file is read, once: that it was as it should be is kept beside it with its size and
    times, and believed while these stay.
    """
    note = path.with_name(f".{path.name}.seen")
    now = path.stat()
    seen = f"{digest} {now.st_size} {now.st_ino} {now.st_mtime_ns} {now.st_ctime_ns}"
    with suppress(OSError, UnicodeDecodeError):
        if note.read_text() == seen:
            return True
    if content_digest(path) != digest:
        return False
    if time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) > 1e9:  # or the times may stay
        with suppress(FileError), beside(note) as aside:  # in a place to read only: again, then
            aside.write_text(seen)
    return True


def reason(error: BaseException) -> str:
    """Why a file could not be written, in the words of the system where it gives a number."""
    text = " ".join(str(error).split())
    number = re.search(r"\(os error (\d+)\)", text)  # as Rust says it
    if isinstance(error, OSError) and error.errno:
        return os.strerror(error.errno)
    return os.strerror(int(number[1])) if number else text


def _to_disk(path: Path) -> None:
    """Waits until a file or the entries of a directory would outlast a power cut."""
    file = os.open(path, os.O_RDONLY)
    try:
        with suppress(OSError):  # some file systems can't, for directories
            os.fsync(file)
    finally:
        os.close(file)


def sweep(folder: Path) -> None:
    """Remove what processes left unfinished that run no more.

    Of processes that count elsewhere it can't be told whether they run: what they write is let be
    until it has not changed for a week.
    """
    for path in folder.glob(f".*{PART}"):
        found = UNFINISHED.search(path.name)
        if found and found[1] == place():
            process = int(found[2])
            left = found[3] != RUN if process == os.getpid() else not alive(process)
        else:
            left = time.time() - _changed(path) > ABANDONED
        if left:
            _remove(path)


def _changed(path: Path) -> float:
    """When a file was changed, in seconds; now, if it is gone."""
    try:
        return path.lstat().st_mtime
    except OSError:
        return time.time()


def alive(process: int) -> bool:
    """Whether a process of this place runs."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def run_directory(trainer: Trainer) -> Path | None:
    """The directory that a run leaves its files in; None for a trial (`fast_dev_run`)."""
    # Lightning sets this attribute without declaring it.
    return None if getattr(trainer, "fast_dev_run", False) else Path(trainer.default_root_dir)
