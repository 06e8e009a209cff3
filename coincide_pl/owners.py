"""Keep an output directory to one run, on any file system: a file that names the owner.

Locks of the operating system hold on one machine only where a file system of several is mounted
without them. So the owner is a file, `.owner`, with host, process and start, which is made in one
step or not at all; its time of change is the heartbeat.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path

from coincide_pl.errors import CoincideError, FileError
from coincide_pl.files import RUN, alive, place, reason, sweep, unfinished

OWNER = ".owner"
BEAT = 20.0
"""Seconds between two heartbeats."""
STALE = 300.0
"""Seconds without a heartbeat after which an owner elsewhere counts as lost."""


@dataclass(frozen=True)
class Claim:
    """What an owner's file says.

    Attributes:
        host: name of its machine.
        place: where its process number is its own, see `files.place`.
        process: its number.
        run: tells it from another process that had its number.
        started: when the process was started, as the system counts; None where that is not known.
        since: when it began to write, for people.
    """

    host: str
    place: str
    process: int
    run: str
    started: str | None
    since: str

    @classmethod
    def own(cls) -> Claim:
        """Of this process, now."""
        since = datetime.now().astimezone().isoformat(" ", "seconds")
        process = os.getpid()
        return cls(socket.gethostname(), place(), process, RUN, _started(process), since)

    @classmethod
    def read(cls, text: str) -> Claim | None:
        """What a file's text says; None where it is no claim."""
        try:
            claim = cls(**json.loads(text))
        except (ValueError, TypeError, RecursionError):
            return None
        known = isinstance(claim.process, int) and f"{claim.host}{claim.since}".isprintable()
        return claim if known else None

    @property
    def text(self) -> str:
        """As it stands in the file."""
        return json.dumps(asdict(self))

    @property
    def is_local(self) -> bool:
        """Whether this process can tell if that one runs."""
        return self.place == place()

    @property
    def runs(self) -> bool:
        """Whether a local process of this claim runs."""
        if self.process == os.getpid():
            return self.run == RUN
        return alive(self.process) and self.started == _started(self.process)

    def __str__(self) -> str:
        return f"process {self.process} on {self.host}, since {self.since},"


class Owner:
    """Keeps a directory to one process: a second one is refused with a line about the first.

    The file of a process that ended without removing it is replaced: at once by a process of the
    same machine, which sees that it is gone, and by one elsewhere after `STALE` seconds without a
    heartbeat. An owner that was so replaced while it stood still ends as soon as it finds out.
    """

    def __init__(self, directory: str | Path) -> None:
        """Takes the directory for this process.

        Args:
            directory: the folder; it is made if it is not there.

        Raises:
            FileError: another process writes there, or nobody can.
        """
        self._directory, self._claim = directory, Claim.own()
        self._path = Path(directory).expanduser() / OWNER
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            # Also below: this run may have nothing left to write where a killed one was writing.
            for folder in (self._path.parent, *self._path.parent.glob("*/")):
                sweep(folder)
            self._take()
        except OSError as error:
            raise FileError(f"{directory}: can't be written ({reason(error)})") from error

    def _take(self) -> None:
        """Puts the claim in its place, once that is free, and begins to give signs of life."""
        while not self._put():
            if (found := self._found()) is None:
                continue
            text, silent = found
            held = Claim.read(text)
            if held.runs if held and held.is_local else silent < STALE:
                raise FileError(self._refusal(held, silent))
            self._remove(text)
        self._ended = threading.Event()
        threading.Thread(target=self._live, daemon=True).start()

    @contextmanager
    def _beside(self) -> Iterator[Path]:
        """A file with the claim, made now by the clock of the file system."""
        mine = unfinished(self._path)
        try:
            mine.write_text(self._claim.text)
            yield mine
        finally:
            mine.unlink(missing_ok=True)

    def _put(self) -> bool:
        """Puts the claim in its place unless there is one; says whether it is there."""
        with self._beside() as mine:
            try:
                os.link(mine, self._path)
            except FileExistsError:  # or the server's answer was lost, and the request made again
                return mine.stat().st_nlink > 1
            except OSError:  # a file system without links
                try:
                    with self._path.open("x") as file:
                        file.write(self._claim.text)
                except FileExistsError:
                    return False
        return True

    def _found(self) -> tuple[str, float] | None:
        """The claim that is there, and how many seconds ago its owner was last heard of."""
        with suppress(FileNotFoundError), self._beside() as mine:
            text = self._path.read_text(errors="replace")
            return text, mine.stat().st_mtime - self._path.stat().st_mtime
        return None

    def _refusal(self, held: Claim | None, silent: float) -> str:
        name = held or "another process"
        said = f"{self._directory}: {name} is writing there"
        if held and held.is_local:
            return f"{said}; wait for it, or name another directory"
        return (
            f"{said} (last heard of {max(0, silent):.0f} s ago); wait for it, or name another "
            f"directory. If it runs no more, its place is free {STALE / 60:.0f} minutes after it "
            f"was last heard of, or once {self._directory}/{OWNER} is deleted"
        )

    def _remove(self, text: str) -> None:
        """Removes the claim of a lost owner, but not one that somebody has put there meanwhile."""
        aside = unfinished(self._path)
        with suppress(FileNotFoundError):
            self._path.rename(aside)
            if aside.read_text(errors="replace") != text:
                with suppress(FileExistsError):
                    os.link(aside, self._path)
            aside.unlink()

    def _live(self) -> None:
        """Gives a sign of life now and then; ends this process where it is the owner no more."""
        while not self._ended.wait(BEAT):
            with suppress(OSError, CoincideError):  # the server is away: later, then
                if (found := self._found()) is None:
                    continue
                if found[0] == self._claim.text:
                    self._beat()
                    continue
                sys.stderr.write(
                    f"{self._directory}: {Claim.read(found[0]) or 'another process'} has taken it "
                    f"over, as nothing was heard of this one for {STALE / 60:.0f} minutes\n"
                )
                os.kill(os.getpid(), signal.SIGTERM)
                return

    def _beat(self) -> None:
        os.utime(self._path)

    def release(self) -> None:
        """Lets other processes write to the directory again."""
        self._ended.set()
        with suppress(OSError, CoincideError):
            if (found := self._found()) is not None and found[0] == self._claim.text:
                self._free()

    def _free(self) -> None:
        self._path.unlink()

    def __enter__(self) -> Owner:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _started(process: int) -> str | None:
    """When a process was started, in ticks of the system's clock; None where that is not told."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
