"""Whether images are still what they were: their sizes and times of change, or their content."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from coincide_pl.data.records import Records
from coincide_pl.data.shards.packed import Packed

IMAGES_PER_TASK = 4096
"""How many images a thread looks at before it takes more."""
ABSENT = (-1, -1)
"""Stands for the size and time of an image that is not there."""


def images_digest(records: Records, content: bool = False, num_threads: int | None = None) -> str:
    """A digest of all images that some records show, which differs once one has changed.

    It belongs, beside the digest of the records, to the identity of all that is made from images.
    It does not depend on where the images lie. Images that a reader wrote itself, under names made
    from their content, count by name and size alone.

    Args:
        records: the data.
        content: read every byte of every image, rather than believe sizes and times of change; for
            images that were copied to another place, and so have other times.
        num_threads: number of images that are looked at at a time (default: two for each core, for
            they wait for the disk).

    Returns:
        32 hexadecimal digits.
    """
    names = records.image_names
    timed = not records.notes.images_named_by_content
    look = partial(_contents if content else _states, records.image_root, timed=timed)
    named, seen = hashlib.blake2b(), hashlib.blake2b()
    parts = [names[i : i + IMAGES_PER_TASK] for i in range(0, len(names), IMAGES_PER_TASK)]
    with ThreadPoolExecutor(num_threads or 2 * (os.cpu_count() or 1)) as pool:
        for part, found in zip(parts, pool.map(look, parts), strict=True):
            named.update("".join(f"{name}\0" for name in part).encode())
            seen.update(found)
    kind = b"content" if content else b"state"
    return hashlib.blake2b(kind + named.digest() + seen.digest(), digest_size=16).hexdigest()


def _states(root: Path, names: Sequence[str], timed: bool) -> bytes:
    """Sizes in bytes and times of change in nanoseconds of some images, 8 bytes each."""
    states = [state or ABSENT for state in file_states(root, names).values()]
    return np.array(states, np.int64)[:, : 1 + timed].tobytes()


def _contents(root: Path, names: Sequence[str], timed: bool) -> bytes:
    """The digests of some images, 16 bytes each."""
    return b"".join(_content(root, name) for name in names)


def _content(root: Path, name: str) -> bytes:
    try:
        if packed := Packed.of(name):
            return hashlib.blake2b(packed.read(root), digest_size=16).digest()
        with open(located(root, name), "rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
    except OSError:
        return bytes(16)


def located(root: Path, name: str) -> str:
    """The path of an image, also where its name is composed otherwise on disk.

    An accented letter can be one character or two (NFC or NFD), and copying between systems
    changes the one into the other.
    """
    path = os.path.join(root, name)
    if not name.isascii() and not os.path.lexists(path):
        for form in ("NFC", "NFD"):
            other = os.path.join(root, unicodedata.normalize(form, name))
            if os.path.lexists(other):
                return other
    return path


def file_states(root: Path, names: Iterable[str]) -> dict[str, list[int] | None]:
    """Size in bytes and time of change in nanoseconds of some images; None where there is none."""
    found: dict[str, list[int] | None] = {}
    shards: dict[str, list[int] | None] = {}
    for name in names:
        if packed := Packed.of(name):
            if packed.shard not in shards:
                shards[packed.shard] = packed.state(root)
            found[name] = shards[packed.shard]
            continue
        try:
            state = os.stat(located(root, name))
        except (OSError, ValueError):
            found[name] = None
        else:
            found[name] = [state.st_size, state.st_mtime_ns]
    return found
