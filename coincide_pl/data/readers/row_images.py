"""The images of a row in the chat format, in the order in which its messages show them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable, Iterator

from coincide_pl.data.readers.conversation import MALFORMED, Item
from coincide_pl.data.readers.unread import OTHER_KEY, UNREAD
from coincide_pl.data.record import IMAGE_MARK, Role, Unusable

CONVERSATIONS = {"messages": ("role", "content"), "conversations": ("from", "value")}
"""Columns that may hold the conversation, and its keys of sender and content."""
IMAGES = ("images", "image")
"""Columns that may hold images."""
OWN = ("image", "path", "url", "image_url", "bytes")
"""Keys under which a part of a message may hold its own image."""
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+;base64,")
"""How an image begins that stands in a text."""


class RowImages:
    """The images of a row, handed out in the order in which its messages show them."""

    def __init__(self, item: Item, path_of: Callable[[object], str]) -> None:
        """Finds the images of the row's own column.

        Args:
            item: the row.
            path_of: the path of an image within the image folder.
        """
        self.path_of, self.item = path_of, item
        given: object = next((item[name] for name in IMAGES if item.get(name) is not None), [])
        given = given if isinstance(given, list) else [given]
        self.column = [image for image in given if image is not None]
        self.used: set[int] = set()
        self.next = 0
        self.shown: list[str] = []

    def all(self) -> Iterator[object]:
        """The images as they stand in the row: of the column, then of parts."""
        yield from self.column
        for field in CONVERSATIONS:
            turns = self.item.get(field)
            for turn in turns if isinstance(turns, list) else []:
                content = turn.get("content") if isinstance(turn, dict) else None
                for part in content if isinstance(content, list) else []:
                    if isinstance(part, dict) and (own := _own(part)) is not None:
                        yield own

    def text(self, content: object, role: Role) -> object:
        """A message's content as text with image marks; anything else as it is."""
        if isinstance(content, str):
            self._marks(content, role)
            return content
        if not isinstance(content, list):
            return content
        text, after_image = "", False
        for part in content:
            kind, said = self._part(part, role)
            if kind == "image":
                text += f"\n{IMAGE_MARK}" if text else IMAGE_MARK
            else:
                text += f"\n{said}" if after_image and not said.startswith("\n") else said
            after_image = kind == "image"
        return text

    def unshown(self) -> list[str]:
        """Paths of the images of the column that no message shows."""
        left = [image for i, image in enumerate(self.column) if i not in self.used]
        return [self.path_of(image) for image in left]

    def _part(self, part: object, role: Role) -> tuple[str, str]:
        if not isinstance(part, dict):
            raise Unusable(MALFORMED, "a part of a message must be an object")
        if media := next((key for key in part if OTHER_KEY.fullmatch(key) and part[key]), None):
            raise Unusable(UNREAD, f"a part holds {media!r}, which is not read")
        own = _own(part)
        kind = part.get("type") or ("image" if own is not None else "text")
        if kind == "text":
            said = part.get("text")
            if not isinstance(said, str):
                raise Unusable(MALFORMED, "a part of type 'text' must have a 'text'")
            self._marks(said, role)
            return "text", said
        if kind not in ("image", "image_url"):
            raise Unusable(
                MALFORMED, f"a part is of type {str(kind)[:40]!r}; known are image, text"
            )
        if role != "user":
            raise Unusable(MALFORMED, f"a message of the {role} shows an image")
        if own is not None:
            self.shown.append(self.path_of(own))
        else:
            index = part.get("index")
            self._show(index if isinstance(index, int) else self.next)
        return "image", ""

    def _marks(self, text: str, role: Role) -> None:
        for _ in range(text.count(IMAGE_MARK) if role == "user" else 0):
            self._show(self.next)

    def _show(self, index: int) -> None:
        if not 0 <= index < len(self.column):
            raise Unusable(MALFORMED, f"shows image {index + 1} of {len(self.column)}")
        self.shown.append(self.path_of(self.column[index]))
        self.used.add(index)
        self.next = index + 1


def _own(part: Item) -> object:
    """A part's own image, if it holds one."""
    if isinstance(part.get("bytes"), bytes):
        return part["bytes"]
    return next((part[key] for key in OWN if part.get(key)), None)


def is_embedded(image: object) -> bool:
    """Whether the bytes of an image stand in its row."""
    if isinstance(image, dict):
        if image.get("bytes") is not None:
            return True
        image = image.get("path") or image.get("url")
    return isinstance(image, bytes) or (isinstance(image, str) and bool(DATA_URL.match(image)))


def decoded(url: str) -> bytes:
    """The bytes of an image that stands in a text as a data URL.

    Raises:
        Unusable: they are not base64.
    """
    try:
        return base64.b64decode(url.partition(",")[2], validate=True)
    except (binascii.Error, ValueError):
        raise Unusable(MALFORMED, "an image is a data URL, and not base64") from None
