"""What stands in data files and no reader reads: named, so that it is never dropped in silence."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable

from coincide_pl.data.record import IMAGE_MARK, Record, Unusable

UNREAD = "with media or turns that are not read"
"""Kind of an unusable record."""

SUFFIX = r"s?(_?(path|file|file_?name|name|url|uri|list|data|bytes|base64|b64))?s?"
IMAGE_KEY = re.compile(f"(image|img|picture|photo){SUFFIX}", re.IGNORECASE)
"""Keys that hold images."""
OTHER_KEY = re.compile(f"(video|frame|audio|speech|point_?cloud){SUFFIX}", re.IGNORECASE)
"""Keys that hold other media."""
UNREAD_KEYS = ("tools", "functions")
"""Keys of an item whose content the model is meant to see."""
UNREAD_IN_TURNS = (
    *("tool_calls", "function_call", "tool_call_id"),
    *("reasoning_content", "reasoning", "thinking"),
)
"""Keys of a turn whose content the model is meant to see, or to say."""
WEIGHTS = ("weight", "loss_weight", "train", "trainable", "loss")
"""Keys of a turn that say how much it is trained on; 1 and true are read."""
IMAGE_LIKE = re.compile(
    r"<img>[^<]*</img>"
    r"|<\|?(?:image|img)(?:[ _-]?\d+|[ _-]?pad|[ _-]?token|[ _-]?placeholder|[ _-]?here)?\|?>",
    re.IGNORECASE,
)
"""Marks of an image that other formats have."""
OTHER_MEDIA = re.compile(
    r"<\|?(?:video|audio|speech|sound)(?:[ _-]?\d+|[ _-]?pad|[ _-]?token|[ _-]?here)?\|?>"
    r"|<(video|audio)>[^<]*</\1>",
    re.IGNORECASE,
)
"""Marks of other media."""
HTML = re.compile(r"</|\bhtml5?\b|\btags?\b|\belements?\b|`", re.IGNORECASE)
"""Tells that a mark inside a sentence is what somebody says about HTML."""


def refuse_unread(item: dict[str, object], read: Collection[str]) -> None:
    """Refuse an item that holds media, or text for the model, under a key that no reader reads.

    What else tells of an image, such as its address, is let be where an image is read.

    Args:
        item: as it stands in the file.
        read: keys of images that are read; the first that holds one counts.

    Raises:
        Unusable: naming the key.
    """
    values = [item[key] for key in read if item.get(key)]
    given = [value if isinstance(value, list) else [value] for value in values]
    if any(other != given[0] for other in given[1:]):
        raise Unusable(UNREAD, f"{' and '.join(map(repr, read))} are not the same")
    for key, value in item.items():
        if key in read or not value:
            continue
        if key in UNREAD_KEYS:
            raise Unusable(UNREAD, f"{key!r} is not read")
        unread = OTHER_KEY.fullmatch(key) or (not given and IMAGE_KEY.fullmatch(key))
        if unread and isinstance(value, str | bytes | list | dict):
            known = " or ".join(map(repr, read))
            raise Unusable(UNREAD, f"{key[:40]!r} holds media that are not read; known is {known}")


def has_content(value: object) -> bool:
    """Whether there is anything under a key; false and 0 are something."""
    return value is not None and value != "" and value != [] and value != {}


def is_media(key: str) -> bool:
    """Whether a key is one that media stand under."""
    return (IMAGE_KEY.fullmatch(key) or OTHER_KEY.fullmatch(key)) is not None


def refuse_unread_turn(position: int, turn: dict[str, object], read: Iterable[str]) -> None:
    """Refuse a turn with more to it than a sender and what is said, or that is not to be trained.

    Args:
        position: of the turn in its conversation.
        turn: as it stands in the file.
        read: the keys that are read.

    Raises:
        Unusable: naming the key.
    """
    if len(turn) == 2:
        return
    for key, value in turn.items():
        if key in read or value is None or value == "":
            continue
        if key in WEIGHTS:
            if value is not True and value != 1:
                raise Unusable(UNREAD, f"turn {position} has {key!r} {value!r}, which is not read")
        elif value and (key in UNREAD_IN_TURNS or is_media(key)):
            raise Unusable(UNREAD, f"turn {position} has {key!r}, which is not read")


def refuse_marks(record: Record) -> None:
    """Refuse a record in which the user shows media by marks that no reader reads.

    Marks of images in other formats are let be where the record has images.

    Raises:
        Unusable: naming the mark.
    """
    for turn in record.turns:
        if turn.role == "assistant" or "<" not in turn.text:
            continue
        text = turn.text.replace(IMAGE_MARK, "")
        found = next((m for m in OTHER_MEDIA.finditer(text) if not _is_html(m, text)), None)
        if found is None and not record.images:
            found = next((m for m in IMAGE_LIKE.finditer(text) if m[0].lower() != "<img>"), None)
        if found is not None:
            raise Unusable(
                UNREAD,
                f"shows media by {found[0][:60]!r}, which is not read; known is {IMAGE_MARK}",
            )


def _is_html(mark: re.Match[str], text: str) -> bool:
    """Whether `<video>` or `<audio>` is spoken of rather than shown.

    One that begins the text or has a line to itself is shown, unless it is closed.
    """
    name = mark[0].strip("<>").lower()
    if name not in ("video", "audio"):
        return False
    before, after = text[: mark.start()], text[mark.end() :]
    if re.search(f"</{name}>", after, re.IGNORECASE):
        return True
    line = before.rpartition("\n")[2] + after.partition("\n")[0]
    return bool(before.strip()) and bool(line.strip()) and HTML.search(text) is not None
