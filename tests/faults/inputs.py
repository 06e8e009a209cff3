"""Broken inputs, each made on the spot, and what each gets."""

from __future__ import annotations

import io
import json
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

RED = (204, 51, 51)
GOOD = {
    "id": "x",
    "image": "x.png",
    "conversations": [
        {"from": "human", "value": "<image>\nwhat?"},
        {"from": "gpt", "value": "that"},
    ],
}
TALK = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]


@dataclass(frozen=True)
class Case:
    """A broken input.

    Attributes:
        name: what it is, for the list.
        gets: the right records or pixels in words, or, in quotes, what the one line says.
        content: of the data file, or of the image.
        good: for records, a check of what is read; for images, the color of the first pixel.
        said: what the line must say.
        file: the image's name.
    """

    name: str
    content: bytes
    said: str = ""
    gets: str = ""
    good: Any = None
    file: str = "x.png"

    @property
    def outcome(self) -> str:
        """For the list."""
        return self.gets if self.gets else f"error: … {self.said}"


def items(*changes: dict[str, Any]) -> bytes:
    """A data file of good records with something changed in each."""
    return json.dumps([GOOD, *({**GOOD, **change} for change in changes)]).encode()


def said(text: str, **more: str) -> dict[str, Any]:
    """A conversation in which the user says something."""
    return {"conversations": [{"from": "human", "value": text}, TALK[1]], **more}


def turns(count: int) -> Callable[[list[Any]], bool]:
    """A check that the last record has as many turns."""
    return lambda records: len(records[-1].turns) == count


WHOLE = items({})
LONG = "word " * 20_000
RECORDS = [
    Case("an empty file", b"", "no records in it"),
    Case("only blanks", b" \n\t \n", "no records in it"),
    Case("an empty array", b"[]", "no records in it"),
    Case("an array cut inside a record", WHOLE[:-40], "record 1: not JSON"),
    Case("an array without its end", WHOLE[:-1], "record 2: not JSON: the text ends early"),
    Case("two records without a comma", WHOLE.replace(b"}, {", b"} {", 1), "not JSON"),
    Case("text after the array", WHOLE + b" x", "not JSON"),
    Case("a number with 5,000 digits", b"[" + b"7" * 5000 + b"]", "too many digits"),
    Case("100,000 brackets", b"[" * 100_000, "nested too deeply"),
    Case("a string", b'"text"', "record 0: is a str, not an object"),
    Case("null among the records", b"[null]", "record 0: is a NoneType, not an object"),
    Case("NaN as an id", items({"id": float("nan")}), gets="the id as text",
         good=lambda r: r[-1].id == "nan"),
    Case("bytes that are not UTF-8", WHOLE.replace(b"that", b"th\xff\xfe"), "not UTF-8"),
    Case("UTF-16", WHOLE.decode().encode("utf-16"), "not UTF-8"),
    Case("a byte order mark", b"\xef\xbb\xbf" + WHOLE, gets="all records", good=turns(2)),
    Case("half a surrogate pair", WHOLE.replace(b"that", b"\\ud800", 1), "half a surrogate pair"),
    Case("a NUL in a text", WHOLE.replace(b"that", b"a\\u0000b"), gets="the text as it is",
         good=lambda r: r[-1].turns[1].text == "a\0b"),
    Case("duplicate ids", items({}, {}), gets="all records; ids need not be unique",
         good=lambda r: len(r) == 3),
    Case("an id of 400 digits", items({"id": 10**400}), gets="the id as text",
         good=lambda r: r[-1].id == str(10**400)),
    Case("a list as an id", items({"id": [1]}), "'id' must be"),
    Case("no id", items({"id": None}), gets="the record's number as its id", good=turns(2)),
    Case("no conversations", items({"conversations": None}), "no 'conversations'"),
    Case("empty conversations", items({"conversations": []}), "no 'conversations'"),
    Case("conversations that are text", items({"conversations": "hi"}), "no 'conversations'"),
    Case("a turn that is a number", items({"conversations": [3]}), "turn 0 must have a 'value'"),
    Case("a turn that says a number", items({"conversations": [{"from": "human", "value": 3}]}),
         "turn 0 must have a 'value' that is text"),
    Case("an unknown sender", items({"conversations": [{"from": "bot", "value": "?"}]}),
         "'from' 'bot'; known are human"),
    Case("two questions in a row", items({"conversations": [TALK[0], *TALK]}), "must alternate"),
    Case("a system turn in the middle",
         items({"conversations": [*TALK, {"from": "system", "value": "s"}, *TALK]}),
         "a system turn must come first"),
    Case("no answer", items({"conversations": TALK[:1], "image": []}), "no answer"),
    Case("an empty answer", items({"conversations": [TALK[0], {"from": "gpt", "value": " "}]}),
         "every answer is empty"),
    Case("an answer first", items({"conversations": [TALK[1], *TALK]}),
         gets="the record without it, and a count", good=turns(2)),
    Case("a turn of 100,000 characters", items(said(LONG)),
         gets="the whole text; cut at `data.max_length` where it is encoded, and counted",
         good=lambda r: len(r[-1].turns[0].text) > 100_000),
    Case("1,000 turns", items({"conversations": TALK * 500}), gets="all of them", good=turns(1000)),
    Case("unknown keys", items({"extra": {"deep": [1]}, "weight": 2}), gets="the record",
         good=turns(2)),
    Case("a key twice", WHOLE.replace(b'"id"', b'"id": "no", "id"', 1), gets="the last of them",
         good=lambda r: r[0].id == "x"),
    Case("more marks than images", items(said("<image> <image> ?")),
         "2 <image> marks but 1 images"),
    Case("a mark without an image", items(said("<image> ?", image="")), "1 <image> marks but 0"),
    Case("no mark for an image", items(said("what?")), gets="the mark in front of the question",
         good=lambda r: r[-1].turns[0].text.startswith("<image>\n")),
    Case("a mark inside a word", items(said("wh<image>at?")), gets="the image there",
         good=lambda r: r[-1].turns[0].text == "wh<image>at?"),
    Case("a mark in an answer", items({"conversations": [
        {"from": "human", "value": "<image>?"}, {"from": "gpt", "value": "<image>"}]}),
        gets="text", good=turns(2)),
    Case("an image that is a number", items({"image": 3}), "'image' must be a path"),
    Case("an image that is an object", items({"image": {"path": "x"}}), "'image' must be a path"),
    Case("an image path with ..", items({"image": "../x.png"}), "leads outside the image folder"),
    Case("an absolute image path", items({"image": "/etc/passwd"}),
         "leads outside the image folder"),
    Case("a NUL in an image path", items({"image": "a\0b.png"}), "leads outside the image folder"),
    Case("a line break in an image path", items({"image": "a\nb.png"}),
         gets="the record; the path is shown in quotes if it is missing", good=turns(2)),
    Case("JSON lines, one cut", json.dumps(GOOD).encode() + b'\n{"id": "y', "record 1: not JSON"),
]  # fmt: skip


def picture(
    kind: str = "PNG", size: tuple[int, int] = (8, 6), mode: str = "RGB", **more: Any
) -> bytes:
    """A file of one color."""
    file = io.BytesIO()
    Image.new("RGB", size, RED).convert(mode).save(file, kind, **more)
    return file.getvalue()


def sixteen() -> bytes:
    """A gray picture of 16 bits."""
    file = io.BytesIO()
    Image.fromarray(np.full((6, 8), 100 * 257, np.uint16)).save(file, "PNG")
    return file.getvalue()


def turned() -> bytes:
    """A picture that says it must be turned, red at the left as it lies in the file."""
    pixels = np.zeros((6, 8, 3), np.uint8)
    pixels[:, :4] = RED
    exif = Image.Exif()
    exif[0x0112] = 3
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG", exif=exif)
    return file.getvalue()


def bomb(width: int, height: int) -> bytes:
    """A PNG that says that it is large, in a few bytes."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")


def animated() -> bytes:
    """A GIF whose second frame is black."""
    file = io.BytesIO()
    first, second = Image.new("RGB", (8, 6), RED), Image.new("RGB", (8, 6))
    first.save(file, "GIF", save_all=True, append_images=[second])
    return file.getvalue()


IMAGES = [
    Case("no file", b"", "no such image", file="y.png"),
    Case("no bytes", b"", "not an image"),
    Case("text", b"<html>", "not an image"),
    Case("a PNG cut", picture(size=(64, 64))[:90], "a broken image"),
    Case("a JPEG cut", picture("JPEG", (64, 64))[:-40], "a broken image"),
    Case("the head of a PNG alone", picture()[:16], "image"),
    Case("a JPEG called .png", picture("JPEG"), gets="the picture", good=RED),
    Case("CMYK", picture("JPEG", mode="CMYK"), gets="the picture in RGB", good=RED),
    Case("a palette", picture(mode="P"), gets="the picture in RGB", good=RED),
    Case("a transparent palette", picture(mode="P", transparency=0), gets="the picture in RGB",
         good=RED),
    Case("an alpha channel", picture(mode="RGBA"), gets="the picture in RGB", good=RED),
    Case("one bit", picture(mode="1"), gets="black and white", good=(0, 0, 0)),
    Case("16 bits of gray", sixteen(), gets="8 bits of gray", good=(100, 100, 100)),
    Case("animated", animated(), gets="the first frame", good=RED),
    Case("turned by EXIF", turned(), gets="the picture upright", good=(0, 0, 0)),
    Case("1 by 1", picture(size=(1, 1)), gets="the picture", good=RED),
    Case("20,000 by 20,000", bomb(20_000, 20_000), "too many pixels"),
    Case("2,000,000,000 by 1", bomb(2_000_000_000, 1), "pixels"),
    Case("a size of 0", bomb(0, 6), "image"),
]  # fmt: skip


def write_image(case: Case, folder: Path) -> str:
    """Writes an image, unless it is about none; returns its name."""
    if case.name != "no file":
        (folder / case.file).write_bytes(case.content)
    return case.file
