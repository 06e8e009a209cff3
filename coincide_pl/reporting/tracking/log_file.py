"""Reader of the log `run-<id>.wandb` that W&B keeps of a run on disk.

It is a log in LevelDB's format whose entries are W&B's `Record` messages. 7 bytes come first, then
blocks of 32 KiB; a block holds chunks, and zeros where less than a chunk's head is left of it:

    checksum (4 bytes, CRC-32 of kind and data)   size (2)   kind (1)   data (size)

An entry is one whole chunk, or a first, some middle and a last one.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from coincide_pl.errors import CoincideError

Message: TypeAlias = Any
"""A message of W&B's. Its class is made while it is imported, so that it has no type."""
BEGIN = b":W&B\xe1\xbe\x00"
BLOCK = 32768
HEAD = struct.Struct("<IHB")
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
LARGEST = 64 << 20
"""Bytes that an entry has at most; one that claims to be larger counts as damaged."""


@dataclass
class Log:
    """A run of W&B, as far as its log can be read.

    Attributes:
        path: file of the log.
        host: name of the machine that the run was on.
        start: time at which the run began, in seconds since 1970.
        config: values of the run's config, of the names that were asked for.
        summary: values of its summary, the last one of each name that was asked for.
        ended: whether the run came to its end.
        damage: reason why the log was read no further; None where it was read to its end.
    """

    path: Path
    host: str = ""
    start: float = 0.0
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    ended: bool = False
    damage: str | None = None


def read_log(path: Path, config: set[str], summary: set[str]) -> Log:
    """Read a log up to its end, or to where it is cut or damaged.

    Args:
        path: file of the log, `run-<id>.wandb`.
        config: names to keep of the run's config.
        summary: names to keep of its summary.
    """
    log = Log(path)
    begun = False
    try:
        for record in records(path):
            begun, kind = True, record.WhichOneof("record_type")
            if kind == "run":
                log.host = record.run.host
                log.start = record.run.start_time.seconds + record.run.start_time.nanos / 1e9
                log.config |= _named(record.run.config, config)
            elif kind == "config":
                log.config |= _named(record.config, config)
            elif kind == "summary":
                log.summary |= _named(record.summary, summary)
            elif kind == "exit":
                log.ended = record.exit.exit_code == 0
        if not begun:
            log.damage = f"{path}: nothing in it; the run was killed before W&B wrote anything"
    except CoincideError as error:
        log.damage = str(error)
    except ValueError:
        log.damage = f"{path}: damaged, a value is no JSON"
    return log


def records(path: Path) -> Iterator[Message]:
    """Yield a log's `Record` messages one at a time, so memory does not grow with it.

    Raises:
        CoincideError: it is no log of W&B, cut, or damaged; what comes before was yielded.
    """
    from google.protobuf.message import DecodeError
    from wandb.proto import wandb_internal_pb2

    messages: Message = wandb_internal_pb2
    try:
        for at, entry in entries(path):
            try:
                yield messages.Record.FromString(entry)
            except DecodeError as error:
                raise CoincideError(f"{path}: damaged before byte {at}") from error
    except OSError as error:
        raise CoincideError(f"{path}: can't be read ({error.strerror})") from error


def entries(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield a log's entries, and at which byte each ends.

    Raises:
        CoincideError: it is no log of W&B, cut, or damaged.
        OSError: it can't be read.
    """
    entry = bytearray()
    begun = False
    with path.open("rb") as file:
        block, start, at = file.read(BLOCK), 0, len(BEGIN)
        if not block.startswith(BEGIN):
            raise CoincideError(f"{path}: not a log of W&B, or cut in its first bytes")
        while block:
            while len(block) - at >= HEAD.size:
                checksum, size, kind = HEAD.unpack_from(block, at)
                end = at + HEAD.size + size
                data = block[at + HEAD.size : end]
                if end > len(block) and len(block) < BLOCK:
                    raise CoincideError(f"{path}: cut at byte {start + len(block)}")
                sound = zlib.crc32(data, zlib.crc32(bytes([kind]))) == checksum
                fits = begun == (kind in (MIDDLE, LAST)) and WHOLE <= kind <= LAST
                if end > len(block) or not sound or not fits or len(entry) + size > LARGEST:
                    raise CoincideError(f"{path}: damaged at byte {start + at}")
                entry += data
                at, begun = end, kind in (FIRST, MIDDLE)
                if not begun:
                    yield start + at, bytes(entry)
                    entry.clear()
            if len(block) < BLOCK and (begun or at < len(block)):
                raise CoincideError(f"{path}: cut at byte {start + len(block)}")
            start, at, block = start + len(block), 0, file.read(BLOCK)
    if begun:
        raise CoincideError(f"{path}: cut at byte {start}")


def _named(items: Message, names: set[str]) -> dict[str, Any]:
    """Values of some names of a config or summary."""
    return {item.key: json.loads(item.value_json) for item in items.update if item.key in names}
