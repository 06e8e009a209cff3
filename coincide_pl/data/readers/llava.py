"""LLaVA's format: JSON or JSONL with `id`, `image` and `conversations` (LLaVA-1.5, Vision-Flan)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from coincide_pl.data.readers.reader import Reader, json_array, write_text
from coincide_pl.data.records import IMAGE_MARK, Record, Role, Turn
from coincide_pl.errors import DataError

ROLES: dict[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "system": "system",
}
BUFFER = 1 << 22


class LlavaJson(Reader):
    """Records from a LLaVA-format file.

    An `<image>` in a human turn is an image mark; one in an answer is text. Images without a mark
    are put in front of the first human turn. Ids need not be unique: LLaVA-1.5's are not.
    """

    def __init__(
        self, path: str, image_folder: str | None = None, source_field: str | None = None
    ) -> None:
        """Remembers where the data lie; nothing is read yet.

        Args:
            path: a JSON array, or JSON lines.
            image_folder: folder that the `image` paths are relative to (default: the file's own).
            source_field: key of a record that names its task or source; by default the first folder
                of its image path, which tells the source in LLaVA-1.5's mix, or `text` without one.

        Raises:
            DataError: there is no such file or folder.
        """
        self.path = Path(path)
        self.image_root = Path(image_folder) if image_folder else self.path.parent
        self.source_field = source_field
        if not self.path.is_file():
            raise DataError(f"{path}: no such data file")
        if not self.image_root.is_dir():
            raise DataError(f"{image_folder}: no such image folder")

    def files(self) -> list[Path]:
        """The one data file."""
        return [self.path]

    def options(self) -> dict[str, Any]:
        """The source field."""
        return {"source_field": self.source_field}

    def __iter__(self) -> Iterator[Record]:
        """Yields the records in file order."""
        number = -1
        for number, item in enumerate(json_items(self.path)):
            yield self._record(number, item)
        if number < 0:
            raise DataError(f"{self.path}: no records in it")

    def write_subset(self, indices: Iterable[int], path: Path) -> None:
        """Writes the chosen items as they stand in the file, unknown keys too, as a JSON array."""
        write_text(path, json_array(chosen_items(self.path, indices)))

    def _record(self, number: int, item: Any) -> Record:
        name = f"{self.path}: record {number}"
        if not isinstance(item, dict):
            raise DataError(f"{name} is a {type(item).__name__}, not an object")
        identity = item.get("id", number)
        if not isinstance(identity, str | int):
            raise DataError(f"{name}: 'id' must be text or a number")
        name += f" (id {str(identity)[:80]!r})"
        images = item.get("image") or []
        images = [images] if isinstance(images, str) else images
        if not isinstance(images, list) or not all(isinstance(i, str) for i in images):
            raise DataError(f"{name}: 'image' must be a path or a list of paths")
        for image in images:
            check_inside(name, image)
        turns = self._turns(name, item.get("conversations"))
        marks = sum(t.text.count(IMAGE_MARK) for t in turns if t.role == "user")
        if marks > len(images):
            raise DataError(f"{name}: {marks} {IMAGE_MARK} marks but {len(images)} images")
        if marks < len(images):
            first = next(i for i, turn in enumerate(turns) if turn.role == "user")
            text = f"{IMAGE_MARK}\n" * (len(images) - marks) + turns[first].text
            turns[first] = Turn("user", text)
        return Record(str(identity), tuple(images), tuple(turns), self._source(name, item, images))

    def _turns(self, name: str, conversation: Any) -> list[Turn]:
        if not isinstance(conversation, list) or not conversation:
            raise DataError(f"{name}: no 'conversations'")
        turns: list[Turn] = []
        for position, turn in enumerate(conversation):
            if not isinstance(turn, dict) or not isinstance(turn.get("value"), str):
                raise DataError(f"{name}: turn {position} must have a 'value' that is text")
            sender = turn.get("from")
            if not isinstance(sender, str) or sender not in ROLES:
                raise DataError(
                    f"{name}: turn {position} is 'from' {str(sender)[:40]!r}; "
                    f"known are {', '.join(ROLES)}"
                )
            turns.append(Turn(ROLES[sender], turn["value"]))
        spoken = [turn.role for turn in turns if turn.role != "system"]
        for position, role in enumerate(spoken):
            if role != ("user", "assistant")[position % 2]:
                raise DataError(f"{name}: 'conversations' must alternate, a human's turn first")
        if "assistant" not in spoken:
            raise DataError(f"{name}: 'conversations' has no answer")
        if any(turn.role == "system" for turn in turns[1:]):
            raise DataError(f"{name}: a system turn must come first in 'conversations'")
        return turns

    def _source(self, name: str, item: dict[str, Any], images: list[str]) -> str:
        if self.source_field is None:
            return Path(images[0]).parts[0] if images and len(Path(images[0]).parts) > 1 else "text"
        source = item.get(self.source_field)
        if not isinstance(source, str):
            raise DataError(f"{name}: {self.source_field!r} must be text")
        return source


def check_inside(name: str, image: str) -> None:
    """Refuse an image path of a record, called `name`, that leads out of the image folder."""
    if Path(image).is_absolute() or ".." in Path(image).parts or "\0" in image:
        raise DataError(f"{name}: 'image' {image!r} leads outside the image folder")


def chosen_items(path: Path, indices: Iterable[int]) -> list[Any]:
    """Some items of a file, as they stand in it, in the order of `indices`."""
    order = [int(i) for i in indices]
    wanted = set(order)
    items = {n: item for n, item in enumerate(json_items(path)) if n in wanted}
    return [items[n] for n in order]


def json_items(path: Path) -> Iterator[Any]:
    """The items of a JSON array, or of JSON lines, without holding all of them.

    Raises:
        DataError: the file can't be read, or is not JSON; the message tells where.
    """
    decoder = json.JSONDecoder()
    try:
        with path.open(encoding="utf-8-sig") as file:
            buffer, start = file.read(BUFFER), 0
            array = buffer.lstrip()[:1] == "["
            if array:
                start = buffer.index("[") + 1
            count, first = 0, True
            while True:
                start = _skip(buffer, start)
                if array and not first and buffer[start : start + 1] == ",":
                    start = _skip(buffer, start + 1)
                end = buffer[start : start + 1] == "]" if array else False
                if end and not buffer[start + 1 :].strip() and not file.read().strip():
                    return
                try:
                    if start == len(buffer):
                        raise json.JSONDecodeError("the text ends early", buffer, start)
                    item, stop = decoder.raw_decode(buffer, start)
                    if not buffer[stop:].strip(".eE+-"):  # a number may go on in the next block
                        more = file.read(BUFFER)
                        if more:
                            buffer, start = buffer[start:] + more, 0
                            continue
                except (json.JSONDecodeError, RecursionError) as error:
                    more = file.read(max(BUFFER, len(buffer) - start))
                    if more:
                        buffer, start = buffer[start:] + more, 0
                        continue
                    if not array and start == len(buffer):
                        return
                    reason = getattr(error, "msg", "nested too deeply")
                    raise DataError(f"{path}: record {count}: not JSON: {reason}") from error
                yield item
                count, first, start = count + 1, False, stop
                after = _skip(buffer, start)
                if array and after < len(buffer) and buffer[after] not in ",]":
                    raise DataError(f"{path}: record {count}: not JSON: a comma is missing")
                if start > BUFFER:
                    buffer, start = buffer[start:], 0
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text ({error.reason})") from error
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror})") from error


def _skip(text: str, start: int) -> int:
    while start < len(text) and text[start] in " \t\r\n":
        start += 1
    return start
