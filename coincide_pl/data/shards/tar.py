"""What lies where in a tar shard, read from its headers; WebDataset's and Energon's samples."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from coincide_pl.data.shards.places import file_system, is_url, read_bytes
from coincide_pl.errors import DataError
from coincide_pl.files import beside, reason

BLOCK = 512
"""Bytes of a tar's header, and what everything in it is a multiple of."""
READ_AHEAD, FETCH_AHEAD = 64 << 10, 4 << 20
"""Bytes that are read at a time of a shard on disk, and of one at a URL."""
SKIPPED = re.compile(r"__[^/]*__(/|$)")
"""Members that tell of the shard, and that WebDataset and Energon pass over too."""
MOST_TEXT = 64 << 20
"""Bytes of a JSON member at most."""
SCHEMA = pa.schema(
    [
        ("key", pa.string()),
        ("text", pa.binary()),
        ("names", pa.list_(pa.string())),
        ("offsets", pa.list_(pa.int64())),
        ("sizes", pa.list_(pa.int64())),
    ]
)
"""A row for each sample: its JSON, and where its other members are."""


@dataclass
class Sample:
    """The members of a tar that share a key.

    Attributes:
        key: the name without what follows the first dot of its last part.
        text: the JSON member; None where there is none.
        names: of the other members.
        offsets: in bytes, of each.
        sizes: in bytes, of each.
    """

    key: str
    text: bytes | None = None
    names: list[str] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    sizes: list[int] = field(default_factory=list)


class Bytes:
    """A shard's bytes, read in larger pieces than are asked for."""

    def __init__(self, shard: str) -> None:
        """Opens the shard.

        Args:
            shard: path or URL.

        Raises:
            OSError: it is not there.
        """
        self.shard, self.start, self.held = shard, 0, b""
        self.ahead = FETCH_AHEAD if is_url(shard) else READ_AHEAD
        if is_url(shard):
            system, path = file_system(shard)
            self.size = int(system.info(path)["size"])
        else:
            self.size = os.stat(shard).st_size

    def read(self, offset: int, size: int) -> bytes:
        """Some bytes; fewer where the shard ends."""
        inside = offset - self.start
        if not 0 <= inside <= len(self.held) - size:
            end = min(self.size, offset + max(size, self.ahead))
            self.held = read_bytes(self.shard, offset, max(0, end - offset))
            self.start, inside = offset, 0
        return self.held[inside : inside + size]


def members(shard: Bytes) -> Iterator[tuple[str, int, int]]:
    """Name, offset and size in bytes of each ordinary file of a tar.

    Raises:
        ValueError: it is no tar, or ends early.
    """
    offset, long_name, pax = 0, "", dict[str, str]()
    while offset + BLOCK <= shard.size:
        header = shard.read(offset, BLOCK)
        if not header.strip(b"\0"):
            return
        try:
            whole = sum(header[:148]) + sum(header[156:]) + 256 == _number(header[148:156])
        except ValueError:
            whole = False
        if not whole:
            raise ValueError("not a tar" if offset == 0 else f"damaged at byte {offset:,}")
        size, kind = _number(header[124:136]), header[156:157]
        name = _text(header[:100])
        if header[257:262] == b"ustar" and header[345:346] != b"\0":
            name = f"{_text(header[345 : 500 if header[263:265] == b'00' else 476])}/{name}"
        body = offset + BLOCK
        if kind == b"L":
            long_name = _text(shard.read(body, size))
        elif kind == b"x":
            pax = _pax(shard.read(body, size))
        elif kind in b"12" and "." in name.rpartition("/")[2]:
            raise ValueError(f"{name[:80]!r} is a link; pack with tar --dereference")
        elif kind in b"0\0":
            size = int(pax.get("size", size))
            if body + size > shard.size:
                raise ValueError(f"ends inside {name[:80]!r}")
            yield pax.get("path") or long_name or name, body, size
        if kind not in b"Lxg":
            long_name, pax = "", {}
        offset = body + -(-size // BLOCK) * BLOCK
    if offset < shard.size:
        raise ValueError("ends inside a header" if offset else "not a tar")


def samples(shard: Bytes) -> Iterator[Sample]:
    """The samples of a tar: members one after the other that share a key.

    Raises:
        ValueError: it is no tar, or a JSON member is too large.
    """
    sample: Sample | None = None
    for name, offset, size in members(shard):
        folder, slash, last = name.rpartition("/")
        stem, dot, _ = last.partition(".")
        if not dot or not stem:
            continue  # as WebDataset does, which has no place for it
        if SKIPPED.match(name):
            continue
        key = f"{folder}{slash}{stem}"
        if sample is None or sample.key != key:
            if sample is not None:
                yield _with_text(sample, shard)
            sample = Sample(key)
        if name in sample.names:
            raise ValueError(f"{name[:80]!r} is there twice")
        sample.names.append(name)
        sample.offsets.append(offset)
        sample.sizes.append(size)
    if sample is not None:
        yield _with_text(sample, shard)


def _with_text(sample: Sample, shard: Bytes) -> Sample:
    """A sample with its JSON: the member that ends in `.json` and nothing before, or else another.

    Raises:
        ValueError: it is too large.
    """
    ends = [name.rpartition("/")[2].partition(".")[2].lower() for name in sample.names]
    found = [i for i, end in enumerate(ends) if end == "json"]
    found += [i for i, end in enumerate(ends) if end.endswith(".json")]
    if found:
        name = sample.names.pop(found[0])
        offset, size = sample.offsets.pop(found[0]), sample.sizes.pop(found[0])
        if size > MOST_TEXT:
            raise ValueError(f"{name[:80]!r} has {size:,} bytes")
        sample.text = shard.read(offset, size)
    return sample


def write_index(shard: str, target: Path) -> None:
    """Write the samples of a shard as an Arrow file.

    Args:
        shard: path or URL.
        target: the file; it is whole or not there.

    Raises:
        DataError: the shard can't be read, or is no tar.
    """
    try:
        found = list(samples(Bytes(shard)))
    except Exception as error:  # clients of file systems raise anything
        raise DataError(f"{shard}: can't be read ({reason(error)})") from error
    columns = [pa.array([getattr(s, f.name) for s in found], f.type) for f in SCHEMA]
    batch = pa.record_batch(columns, schema=SCHEMA)
    with (
        beside(target) as aside,
        pa.OSFile(str(aside), "wb") as file,
        pa.ipc.new_file(file, SCHEMA) as writer,
    ):
        writer.write_batch(batch)


def read_index(path: Path, columns: list[str] | None = None) -> Iterator[Sample]:
    """The samples of a shard, from its index.

    Args:
        path: the index.
        columns: what is read of each sample, its key among it (default: all).
    """
    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
        for batch in table.select(columns or table.column_names).to_batches(1024):
            for row in batch.to_pylist():
                yield Sample(**row)


def parsed(text: bytes) -> object:
    """A JSON member.

    Raises:
        ValueError: it is not JSON.
    """
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def _number(field: bytes) -> int:
    if field[0] & 0x80:
        return int.from_bytes(field[1:], "big")
    return int(field.strip(b"\0 ") or b"0", 8)


def _text(field: bytes) -> str:
    return field.partition(b"\0")[0].decode(errors="surrogateescape")


def _pax(body: bytes) -> dict[str, str]:
    """The keywords of an extended header: lines of a length, a space, `keyword=value`."""
    found = {}
    while body and body[:1] != b"\0":
        length = int(body.partition(b" ")[0])
        key, _, value = body[:length].partition(b" ")[2].rstrip(b"\n").partition(b"=")
        found[key.decode()] = value.decode(errors="surrogateescape")
        body = body[length:]
    return found
