"""Rows of other shapes than a list of messages, turned into one.

The names of columns and tags are those of LLaMA-Factory's `dataset_info.json`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from coincide_pl.data.readers.conversation import MALFORMED, Item, listed
from coincide_pl.data.readers.unread import UNREAD
from coincide_pl.data.record import Unusable
from coincide_pl.errors import DataError

COLUMNS = {
    "prompt": "instruction",
    "query": "input",
    "response": "output",
    "messages": "messages",
    "history": "history",
    "system": "system",
    "tools": "tools",
    "images": "images",
    "videos": "videos",
    "audios": "audios",
}
"""What a column can hold, and how a row that is read as it stands calls it."""
PREFERENCES = ("chosen", "rejected", "kto_tag")
"""Columns of data for learning from preferences, which are not read."""
TAGS = {
    "role_tag": "from",
    "content_tag": "value",
    "user_tag": "human",
    "assistant_tag": "gpt",
    "system_tag": "system",
    "observation_tag": "observation",
    "function_tag": "function_call",
}
"""How messages call their keys and senders, unless something else is said."""
PAIRS = (
    ("texts", "user", "assistant"),  # The Cauldron, FineVision
    ("conversation", "human", "assistant"),  # ms-swift
)
"""Columns of question-and-answer pairs, and the keys of the two in each."""
ASKED = (("instruction", "input", "output"), ("query", None, "response"))
"""Columns of one question, what is added to it, and its answer: alpaca, and ms-swift."""
SHAPED = ("texts", "conversation", "instruction", "input", "output", "query", "response", "history")
"""Columns that these shapes have."""
PLACES = ("<bbox>", "<ref-object>")
"""Marks of ms-swift that stand for what `objects` holds."""


def check_names(columns: Mapping[str, str], tags: Mapping[str, str]) -> None:
    """Refuse names for what no column or message holds.

    Raises:
        DataError: naming the option, and what is known.
    """
    for option, given, known in (("columns", columns, COLUMNS), ("tags", tags, TAGS)):
        if unknown := sorted(given.keys() - known.keys()):
            raise DataError(f"{option}: {unknown[0]!r} is unknown; known are {', '.join(known)}")


def as_chat(item: Item, columns: Mapping[str, str], tags: Mapping[str, str]) -> Item:
    """A row with its conversation under `messages`, whatever shape it has.

    Args:
        item: as it stands in the file.
        columns: the row's own names of some of `COLUMNS`.
        tags: the messages' own names of some of `TAGS`.

    Raises:
        Unusable: a pair or a question is malformed.
    """
    for ours, theirs in columns.items():
        if theirs in item and theirs != COLUMNS[ours]:
            item = {**item, COLUMNS[ours]: item[theirs]}
    said = item.get("messages") or item.get("conversations")
    if item.get("objects") and any(mark in str(said or item) for mark in PLACES):
        raise Unusable(UNREAD, "'objects' is not read, and the text shows it by a mark")
    if said:
        return {**item, "messages": _untagged(said, {**TAGS, **tags})} if tags else item
    messages = list(_messages(item))
    return {**item, "messages": messages} if messages else item


def _messages(item: Item) -> Iterator[Item]:
    """The messages of a row that holds pairs, or a question and its answer."""
    for column, asks, answers in PAIRS:
        for position, pair in enumerate(_list(item, column)):
            if not isinstance(pair, dict) or not {asks, answers} <= pair.keys():
                what = f"must have {asks!r} and {answers!r}"
                raise Unusable(MALFORMED, f"{column!r}: pair {position} {what}")
            yield _said("user", pair[asks])
            yield _said("assistant", pair[answers])
    for asks, more, answers in ASKED:
        if item.get(answers) is None and item.get(asks) is None:
            continue
        for position, pair in enumerate(_list(item, "history")):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise Unusable(MALFORMED, f"'history': pair {position} must be two texts")
            yield _said("user", pair[0])
            yield _said("assistant", pair[1])
        texts = [item.get(asks), item.get(more) if more else None]
        for text in texts:
            if text is not None and not isinstance(text, str):
                raise Unusable(MALFORMED, f"{asks!r} must be text")
        yield _said("user", "\n".join(str(text) for text in texts if text))
        yield _said("assistant", item.get(answers))
        return


def _said(role: str, content: object) -> Item:
    return {"role": role, "content": content}


def _list(item: Item, column: str) -> list[object]:
    values = listed(item.get(column), column)
    if values is None:
        return []
    if not isinstance(values, list):
        raise Unusable(MALFORMED, f"{column!r} must be a list")
    return values


def _untagged(messages: object, tags: Mapping[str, str]) -> object:
    """Messages by the names that are read."""
    messages = listed(messages, "messages")
    if not isinstance(messages, list):
        return messages
    roles = {tags[f"{role}_tag"]: role for role in ("user", "assistant", "system")}
    renamed: list[object] = []
    for message in messages:
        if not isinstance(message, dict):
            renamed.append(message)
            continue
        rest = {
            k: v for k, v in message.items() if k not in (tags["role_tag"], tags["content_tag"])
        }
        sender = message.get(tags["role_tag"])
        role = roles.get(sender, sender) if isinstance(sender, str) else sender
        renamed.append({"role": role, "content": message.get(tags["content_tag"]), **rest})
    return renamed
