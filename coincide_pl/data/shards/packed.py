"""Images inside shards: how they are named among a record's images, and how they are read."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import pyarrow as pa
import pyarrow.parquet as pq

from coincide_pl.data.shards.places import base_of, file_system, is_url, listed_states, read_bytes

NAME = re.compile(r"(?s)(.+\.(?:tar|parquet))!/(.+)#(\d+)\+(\d+)")
MARK = "!/"
"""Stands between a shard and what lies in it."""
HELD_BYTES = 128 << 20
"""Bytes of Parquet row groups that a process keeps."""


@dataclass(frozen=True)
class Packed:
    """An image in a shard.

    Attributes:
        shard: its path relative to the image folder.
        member: name of a tar's member; column of a Parquet file.
        first: offset in bytes of the member; row group of the Parquet file.
        second: bytes of the member; place among all images of the row group.
    """

    shard: str
    member: str
    first: int
    second: int

    def __str__(self) -> str:
        return f"{self.shard}{MARK}{self.member}#{self.first}+{self.second}"

    @classmethod
    def of(cls, name: str) -> Packed | None:
        """What the name of a record's image says; None for an image that is a file."""
        found = NAME.fullmatch(name) if MARK in name else None
        if found is None:
            return None
        return cls(found[1], found[2], int(found[3]), int(found[4]))

    def place(self, root: str | Path) -> str:
        """Path or URL of the shard.

        Args:
            root: the image folder.
        """
        local = os.path.join(root, self.shard)
        if os.path.lexists(local):
            return local
        folder, rest = str(root), self.shard
        while True:  # in a mix, one folder down
            if (base := base_of(folder)) != folder:
                return f"{base.rstrip('/')}/{rest}"
            first, slash, after = rest.partition("/")
            if not slash:
                return local
            folder, rest = os.path.join(folder, first), after

    def read(self, root: str | Path) -> bytes:
        """The bytes of the image.

        Args:
            root: the image folder.

        Raises:
            OSError: the shard is not there, or ends before.
        """
        place = self.place(root)
        if self.shard.endswith(".parquet"):
            image = _row_group(place, self.member, self.first)[self.second]
            if not isinstance(image, bytes):
                raise OSError("holds no bytes")
            return image
        data = read_bytes(place, self.first, self.second)
        if len(data) != self.second:
            raise OSError(f"ends after {len(data)} of {self.second} bytes")
        return data

    def state(self, root: str | Path) -> list[int] | None:
        """Size and time of change in ns of the shard; None where there is none."""
        place = self.place(root)
        if not is_url(place):
            try:
                about = os.stat(place)
            except (OSError, ValueError):
                return None
            return [about.st_size, about.st_mtime_ns]
        folder = Path(root, self.shard)
        for parent in folder.parents:
            if base_of(str(parent)) != str(parent):
                size, state = listed_states(str(parent))[str(folder.relative_to(parent))]
                return [int(str(size or 0)), int.from_bytes(str(state).encode()[-7:], "big")]
        return None


_groups: OrderedDict[tuple[str, str, int], list[bytes | None]] = OrderedDict()
"""The images of the row groups that were read last."""
_lock = Lock()
"""Held while a row group is looked up, for threads share them."""


def _row_group(place: str, column: str, group: int) -> list[bytes | None]:
    """All images of a row group of a Parquet file, in the order of their rows."""
    with _lock:
        key = (place, column, group)
        if key not in _groups:
            _groups[key] = _read_row_group(place, column, group)
            held = sum(map(_size, _groups.values()))
            while held > HELD_BYTES and len(_groups) > 1:
                held -= _size(_groups.popitem(last=False)[1])
        _groups.move_to_end(key)
        return _groups[key]


def _size(images: list[bytes | None]) -> int:
    return sum(len(image or b"") for image in images)


def _read_row_group(place: str, column: str, group: int) -> list[bytes | None]:
    system, path = file_system(place) if is_url(place) else (None, place)
    try:
        with pq.ParquetFile(path, filesystem=system) as file:
            values = file.read_row_group(group, [column]).column(column).combine_chunks()
    except pa.ArrowException as error:
        raise OSError(" ".join(str(error).split())) from error
    if pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
        values = values.flatten()
    if pa.types.is_struct(values.type):
        values = values.field("bytes")
    images: list[bytes | None] = values.to_pylist()
    return images
