"""JSON arrays and JSON lines, one item at a time."""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from io import TextIOWrapper
from pathlib import Path
from typing import TextIO

import pyarrow as pa

from coincide_pl.errors import DataError
from coincide_pl.files import beside, reason

BUFFER = 1 << 20
"""How many characters are read at a time."""
BLANK = re.compile(r"[ \t\r\n]*")
TAIL = 16
"""Characters at the end of a block in which an item that goes on in the next may look wrong."""


def json_items(path: Path) -> Iterator[object]:
    """The items of a JSON array, or of JSON lines, without holding all of them.

    Raises:
        DataError: the file can't be read, or is not JSON; the message tells where.
    """
    decode = json.JSONDecoder().raw_decode
    try:
        with opened(path) as file:
            buffer, start = file.read(BUFFER), 0
            while buffer and not buffer.strip():
                buffer = file.read(BUFFER)
            array = buffer.lstrip()[:1] == "["
            if array:
                start = buffer.index("[") + 1
            count = 0
            while True:
                start = _skip(buffer, start)
                if array and count and buffer[start : start + 1] == ",":
                    start = _skip(buffer, start + 1)
                end = array and buffer[start : start + 1] == "]"
                if end and not buffer[start + 1 :].strip() and not file.read().strip():
                    return
                try:
                    if start == len(buffer):
                        raise json.JSONDecodeError("the text ends early", buffer, start)
                    item, stop = decode(buffer, start)
                    # A number may go on in the next block.
                    more = len(buffer) - stop < TAIL and not buffer[stop:].strip(".eE+-")
                    if more and (text := file.read(BUFFER)):
                        buffer, start = buffer[start:] + text, 0
                        continue
                except (ValueError, RecursionError) as error:
                    if _cut(error, buffer):
                        text = file.read(max(BUFFER, len(buffer) - start))
                        if text:
                            buffer, start = buffer[start:] + text, 0
                            continue
                        if not array and start == len(buffer):
                            return
                    cause = "nested too deeply"
                    if not isinstance(error, RecursionError):
                        cause = getattr(error, "msg", "a number with too many digits")
                    raise DataError(f"{path}: record {count}: not JSON: {cause}") from error
                yield item
                count, start = count + 1, stop
                after = _skip(buffer, start)
                if array and after < len(buffer) and buffer[after] not in ",]":
                    raise DataError(f"{path}: record {count}: not JSON: a comma is missing")
                if start > BUFFER:
                    buffer, start = buffer[start:], 0
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason})") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: can't be read ({reason(error)})") from error


def opened(path: Path) -> TextIO:
    """A file of text, decompressed where its name ends in `.gz` or `.zst`."""
    if path.suffix == ".gz":
        return gzip.open(path, "rt", encoding="utf-8-sig")
    if path.suffix == ".zst":
        return TextIOWrapper(pa.input_stream(str(path), compression="zstd"), encoding="utf-8-sig")
    return path.open(encoding="utf-8-sig")


def chosen_items(path: Path, numbers: Iterable[int]) -> list[object]:
    """Some items of a file, as they stand in it, in the order of `numbers`."""
    order = [int(number) for number in numbers]
    wanted = set(order)
    items = {n: item for n, item in enumerate(json_items(path)) if n in wanted}
    return [items[n] for n in order]


def write_json(path: Path, pieces: Iterable[str]) -> None:
    """Write text beside its place and put it there, compressed as `opened` reads it."""
    with beside(path) as aside, ExitStack() as files:
        kind = {".gz": "gzip", ".zst": "zstd"}.get(path.suffix)
        file = files.enter_context(aside.open("wb"))
        sink = files.enter_context(pa.CompressedOutputStream(file, kind)) if kind else file
        for piece in pieces:
            sink.write(piece.encode())


def json_array(items: Iterable[object]) -> Iterator[str]:
    """The text of a JSON array, one item a line."""
    separator = "[\n"
    for item in items:
        yield separator + _text(item)
        separator = ",\n"
    yield "\n]\n" if separator.startswith(",") else "[]\n"


def json_lines(items: Iterable[object]) -> Iterator[str]:
    """The text of JSON lines."""
    return (_text(item) + "\n" for item in items)


def _text(item: object) -> str:
    try:
        text = json.dumps(item, ensure_ascii=False)
    except RecursionError as error:
        raise DataError("a record is nested too deeply to be written") from error
    try:
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair, which only an escape can write
        return json.dumps(item)
    return text


def _skip(text: str, start: int) -> int:
    blank = BLANK.match(text, start)
    return blank.end() if blank else start


def _cut(error: Exception, buffer: str) -> bool:
    """Whether an error may come from the end of the block, not from what it holds."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    inside = error.pos < len(buffer.rstrip()) - TAIL
    return not inside or error.msg.startswith("Unterminated string")
