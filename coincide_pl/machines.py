"""What the machines of a run must share, and what each may have for itself."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from torch import distributed

from coincide_pl import ranks
from coincide_pl.errors import CoincideError, DataError, FileError
from coincide_pl.files import reason, unfinished
from coincide_pl.interruption import interruption
from coincide_pl.processes import group_size, on_first_process, patient_group

T = TypeVar("T")

APPEARING = 5.0
"""Seconds that a file may take to be seen from another machine."""


def on_first_of_each_machine(action: Callable[[], object]) -> None:
    """Do something on the first process of each machine; the others wait for it.

    Args:
        action: what is done.

    Raises:
        CoincideError: what the action raised on the first machine where it did, in every process.
    """
    error: CoincideError | None = None
    if ranks.local_rank() == 0:
        try:
            action()
        except CoincideError as caught:
            error = caught
    found = everybodys(error)
    for rank, (host, error) in enumerate(found):
        if error is not None:
            error.args = (f"{error} (rank {rank} on {host})",)
            error.shared = True
            raise error


def check_shared(places: Mapping[str, Path]) -> None:
    """Refuse folders that the machines of a run do not share: each would find half of the files.

    Args:
        places: folders by what they are, such as `data.signals`.

    Raises:
        FileError: naming the folder, and the process that does not see what the first one wrote.
    """
    mark = on_first_process(lambda: _write_marks(places, unfinished(Path("shared")).name))
    missing = next((name for name, place in places.items() if not _appears(place / mark)), None)
    found = everybodys(missing)
    if group_size()[1] == 0:
        for place in places.values():
            with suppress(OSError):
                (place / mark).unlink()
    for rank, (host, name) in enumerate(found):
        if name is not None:
            error = FileError(
                f"{places[name]} ({name}): what the first process writes there is not there for "
                f"rank {rank} on {host}; name a folder that all machines share"
            )
            error.shared = True
            raise error


def check_alike(fingerprints: Mapping[str, str]) -> None:
    """Refuse data that are others on another machine.

    Args:
        fingerprints: of the data, by their option, such as `data.train`.

    Raises:
        DataError: naming the process whose data differ from the first one's.
    """
    found = everybodys(dict(fingerprints))
    for rank, (host, others) in enumerate(found):
        for option, fingerprint in found[0][1].items():
            if others[option] != fingerprint:
                error = DataError(
                    f"{option}: rank {rank} on {host} reads other records than the first process; "
                    "give all machines the same files"
                )
                error.shared = True
                raise error


def everybodys(value: T) -> list[tuple[str, T]]:
    """What each process has given, by rank, with the name of its machine."""
    found: list[Any] = [None] * group_size()[0]
    with patient_group() as group, interruption.waiting():
        distributed.all_gather_object(found, (socket.gethostname(), value), group=group)
    return found


def _write_marks(places: Mapping[str, Path], mark: str) -> str:
    for name, place in places.items():
        try:
            place.mkdir(parents=True, exist_ok=True)
            (place / mark).touch()
        except OSError as error:
            raise FileError(f"{place} ({name}): can't be written ({reason(error)})") from error
    return mark


def _appears(path: Path) -> bool:
    """Whether a file is there; other machines' folders may be some seconds old."""
    deadline = time.monotonic() + APPEARING
    while not path.exists():
        if time.monotonic() > deadline:
            return False
        time.sleep(APPEARING / 50)
    return True
