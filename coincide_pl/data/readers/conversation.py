"""What makes items into conversations that can be trained on, whatever format they came in."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from coincide_pl.data.readers.unread import refuse_unread_turn
from coincide_pl.data.record import IMAGE_MARK, Record, Role, Turn, Unusable

SENDERS: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
LLAVA_SENDERS: dict[Role, str] = {"user": "human", "assistant": "gpt", "system": "system"}
Item = dict[str, object]
"""An object as it stands in a data file."""
LONGEST_PATH = 1024
"""In characters; what is longer is no path."""
BASE64 = re.compile(r"[A-Za-z0-9+/_-]+={0,2}\s*")
MALFORMED, UNTRAINABLE = "malformed", "with nothing to train on"
"""Kinds of unusable records, as they are counted."""
FIRST = "conversations began with an answer, which was dropped"
LAST = "conversations ended with a question, which was dropped"
"""What `trainable` does to conversations."""


def named(identity: object) -> bool:
    """Whether this can be the name of an item."""
    return isinstance(identity, str | int | float)


def identity_of(item: Item, field: str, number: int) -> str:
    """The name of an item, or its number where it has none.

    Args:
        item: as it stands in the file.
        field: key of the name.
        number: of the item in the data set.

    Raises:
        Unusable: it is no name.
    """
    identity = item.get(field)
    if identity is None:
        return str(number)
    if not named(identity):
        raise Unusable(MALFORMED, f"{field!r} must be text or a number")
    return str(identity)


def trainable(record: Record) -> tuple[Record, list[str]]:
    """A record as it is trained on: the user's turns and answers in alternation, all images marked.

    LLaVA's own code drops an answer before the first question in silence, and trains on nothing
    where the rest has no answer. A last question without an answer goes here with its images.
    Images without a mark are put in front of the first question.

    Args:
        record: as it stands in the file.

    Returns:
        The record, and what was done to it, of `FIRST` and `LAST`.

    Raises:
        Unusable: no trainer could use it.
    """
    turns, images, done = record.turns, record.images, []
    head = turns[:1] if turns and turns[0].role == "system" else ()
    spoken = turns[len(head) :]
    roles = [turn.role for turn in spoken]
    if "system" in roles:
        raise Unusable(MALFORMED, "a system turn must come first")
    if "user" not in roles:
        raise Unusable(UNTRAINABLE, "no turn is the user's")
    if roles[0] != "user":
        done.append(FIRST)
        spoken = spoken[roles.index("user") :]
        roles = [turn.role for turn in spoken]
    if "assistant" in roles[::2] or "user" in roles[1::2]:
        raise Unusable(MALFORMED, "turns of user and assistant must alternate")
    marks = sum([turn.text.count(IMAGE_MARK) for turn in spoken[::2]])
    if marks > len(images):
        raise Unusable(MALFORMED, f"{marks} {IMAGE_MARK} marks but {len(images)} images")
    if marks < len(images):
        text = f"{IMAGE_MARK}\n" * (len(images) - marks) + spoken[0].text
        spoken = (Turn("user", text), *spoken[1:])
    if len(spoken) % 2:
        done.append(LAST)
        images = images[: len(images) - spoken[-1].text.count(IMAGE_MARK)]
        spoken = spoken[:-1]
    if not spoken:
        raise Unusable(UNTRAINABLE, "no answer")
    if not any(turn.text.strip() for turn in spoken[1::2]):
        raise Unusable(UNTRAINABLE, "every answer is empty")
    if spoken is not turns:
        record = replace(record, images=images, turns=(*head, *spoken))
    return record, done


def other_reader(item: Item, own: str) -> str:
    """Which reader an item may be meant for, to end a sentence with; nothing where none is.

    Args:
        item: as it stands in the file.
        own: the reader that can't read it.
    """
    for key, reader in (
        ("conversations", "LlavaJson"),
        ("messages", "ChatDataset"),
        ("question_id", "QuestionFile"),
    ):
        if item.get(key) and reader != own:
            return f", but {key!r}: {reader} reads that"
    return ""


def listed(conversation: object, field: str) -> object:
    """A conversation that may be JSON text, as tables hold it, as a list.

    Raises:
        Unusable: it is text, and not JSON.
    """
    if not isinstance(conversation, str) or not conversation.lstrip().startswith("["):
        return conversation
    try:
        return json.loads(conversation)
    except (ValueError, RecursionError):
        raise Unusable(MALFORMED, f"{field!r} is text, and not JSON") from None


def turns_of(
    conversation: object,
    field: str,
    who: str,
    what: str,
    text_of: Callable[[object, Role], object] | None = None,
) -> tuple[Turn, ...]:
    """The turns of a conversation as it stands in a data file.

    Args:
        conversation: a list of objects.
        field: its name in the item.
        who: key of the sender.
        what: key of what is said.
        text_of: the text of what is said, where it is not text already.

    Raises:
        Unusable: it is no such list.
    """
    conversation = listed(conversation, field)
    if not isinstance(conversation, list) or not conversation:
        raise Unusable(MALFORMED, f"no {field!r}")
    turns = []
    for position, turn in enumerate(conversation):
        try:
            role, said = sender_of(turn[who]), turn[what]
        except (KeyError, TypeError):
            raise Unusable(MALFORMED, f"turn {position} {_lacks(turn, who, what)}") from None
        refuse_unread_turn(position, turn, (who, what))
        if text_of is not None:
            said = text_of(said, role)
        if type(said) is not str:
            raise Unusable(MALFORMED, f"turn {position} must have a {what!r} that is text")
        turns.append(Turn(role, said))
    return tuple(turns)


def sender_of(name: str) -> Role:
    """The role of a sender, however it is capitalized.

    Raises:
        KeyError: no such sender is known.
    """
    try:
        return SENDERS[name]
    except KeyError:
        if not isinstance(name, str):
            raise
        return SENDERS[name.lower()]


def with_system(turns: tuple[Turn, ...], system: object) -> tuple[Turn, ...]:
    """A conversation with the system text that stands beside it, as LLaMA-Factory has it.

    Args:
        turns: the conversation.
        system: the item's own system text, if any.

    Raises:
        Unusable: it is no text, or there is another one already.
    """
    if system is None or system == "":
        return turns
    if not isinstance(system, str):
        raise Unusable(MALFORMED, "'system' must be text")
    if turns[0].role != "system":
        return (Turn("system", system), *turns)
    if turns[0].text != system:
        raise Unusable(MALFORMED, "'system' is another text than the system turn")
    return turns


def _lacks(turn: object, who: str, what: str) -> str:
    sender = turn.get(who) if isinstance(turn, dict) else None
    if not isinstance(turn, dict) or (isinstance(sender, str) and sender.lower() in SENDERS):
        return f"must have a {what!r} that is text"
    return f"is {who!r} {str(sender)[:40]!r}; known are {', '.join(SENDERS)}"


def inside(image: str, root: Path) -> str:
    """A path of an image relative to its folder, with `/` between its parts.

    Args:
        image: as it stands in the file; backslashes are taken as they are meant on Windows.
        root: the image folder.

    Raises:
        Unusable: it leads out of the folder, or is an image itself.
    """
    if image.startswith("data:") or (len(image) > LONGEST_PATH and BASE64.fullmatch(image)):
        raise Unusable(MALFORMED, "'image' holds base64 data; images must be files")
    if len(image) > LONGEST_PATH:
        raise Unusable(MALFORMED, f"'image' is a path of {len(image):,} characters")
    image = image.removeprefix("file://").replace("\\", "/")
    if "://" in image and re.match(r"\w+://", image):
        raise Unusable(MALFORMED, f"'image' is at {image[:80]!r}; images must be on disk")
    if image.startswith("/"):
        front = next((front for front in _fronts(root) if image.startswith(front)), None)
        if front is None:
            raise Unusable(MALFORMED, f"'image' {image[:200]!r} leads outside the image folder")
        image = image[len(front) :]
    if "\0" in image or (".." in image and ".." in image.split("/")):
        raise Unusable(MALFORMED, f"'image' {image[:200]!r} leads outside the image folder")
    return image


@lru_cache(maxsize=64)
def _fronts(root: Path) -> tuple[str, str]:
    """How absolute paths into a folder begin: by its own path, or by where links lead."""
    return os.path.join(root.absolute(), ""), os.path.join(root.resolve(), "")


def source_of(item: Item, images: tuple[str, ...], field: str | None) -> str:
    """The task or data set that an item came from.

    Args:
        item: as it stands in the file.
        images: its images.
        field: key that names it; by default `task_name`, as Vision-Flan has it, or else the first
            folder of the image path, which tells the source in LLaVA-1.5's mix, or `text`.

    Raises:
        Unusable: there is no such text.
    """
    if field is not None:
        source = item.get(field)
        if not named(source):
            raise Unusable(MALFORMED, f"{field!r} must be text or a number")
        return str(source)
    task = item.get("task_name")
    if isinstance(task, str) and task:
        return task
    folder, slash, _ = images[0].removeprefix("./").partition("/") if images else ("", "", "")
    return folder if slash else "text"


def llava_item(record: Record) -> Item:
    """A record as an item of a LLaVA-format file."""
    item: Item = {"id": record.id}
    if record.images:
        item["image"] = record.images[0] if len(record.images) == 1 else list(record.images)
    if record.source is not None:
        item["source"] = record.source
    item["conversations"] = [{"from": LLAVA_SENDERS[t.role], "value": t.text} for t in record.turns]
    return item
