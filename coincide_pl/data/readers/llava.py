"""LLaVA's format: JSON or JSONL with `id`, `image` and `conversations` (LLaVA-1.5, Vision-Flan)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from coincide_pl.data.readers.conversation import (
    MALFORMED,
    Item,
    identity_of,
    inside,
    other_reader,
    source_of,
    turns_of,
    with_system,
)
from coincide_pl.data.readers.json_text import json_array, json_items, json_lines, write_json
from coincide_pl.data.readers.reader import OnError, Reader
from coincide_pl.data.readers.tables import json_kind
from coincide_pl.data.readers.unread import has_content, refuse_unread
from coincide_pl.data.record import Record, Unusable
from coincide_pl.errors import DataError

IMAGES = ("image", "images")
"""Keys of an item's images; the first that is there counts."""
READ = frozenset((*IMAGES, "id", "conversations", "system", "task_name"))
"""Keys of an item that are read."""


class LlavaJson(Reader):
    """Records from a LLaVA-format file.

    An `<image>` in a human turn is an image mark; one in an answer is text. Images without a mark
    are put in front of the first human turn. Ids need not be unique: LLaVA-1.5's are not. Answers
    before the first human turn, and a last human turn without an answer, are dropped.
    """

    def __init__(
        self,
        path: str,
        image_folder: str | None = None,
        source_field: str | None = None,
        on_error: OnError = "stop",
    ) -> None:
        """Remembers where the data lie; nothing is read yet.

        Args:
            path: the data file, a JSON array or JSON lines.
            image_folder: folder that the `image` paths are relative to (default: the
                folder of the data file).
            source_field: key of a record that names its task or source; by default `task_name`, as
                Vision-Flan has it, or else the first folder of its image path, which tells the
                source in LLaVA-1.5's mix, or `text` without one.
            on_error: what to do at a record or image that can't be used: `stop`, or `skip` such
                records, count them, and list them in a file. All images are opened for that, once.

        Raises:
            DataError: there is no such file or folder.
        """
        self.path = Path(path).expanduser()
        self.image_folder = image_folder
        self.image_root = Path(image_folder).expanduser() if image_folder else self.path.parent
        self.source_field = source_field
        self.on_error = on_error
        if self.path.is_dir() or self.path.suffix in (".parquet", ".arrow"):
            raise DataError(f"{path}: not JSON; ChatDataset reads folders, Parquet and Arrow")
        if not self.path.is_file():
            raise DataError(f"{path}: no such data file")
        if not self.image_root.is_dir():
            raise DataError(f"{image_folder}: no such image folder")

    def files(self) -> list[Path]:
        """The data file, as the only one."""
        return [self.path]

    def options(self) -> dict[str, object]:
        """The name of the source field."""
        return {"source_field": self.source_field}

    def items(self) -> Iterator[object]:
        """Yields the items in file order, those of a packed list one by one."""
        return unpacked(json_items(self.path))

    def record(self, number: int, item: object) -> Record:
        """An item as a record."""
        if not isinstance(item, dict):
            raise Unusable(MALFORMED, f"is a {type(item).__name__}, not an object")
        identity = identity_of(item, "id", number)
        refuse_unread(item, IMAGES)
        paths = tuple([inside(image, self.image_root) for image in images_of(item)])
        conversations = item.get("conversations")
        if not conversations:
            raise Unusable(MALFORMED, f"no 'conversations'{other_reader(item, 'LlavaJson')}")
        turns = turns_of(conversations, "conversations", "from", "value")
        turns = with_system(turns, item.get("system"))
        return Record(identity, paths, turns, source_of(item, paths, self.source_field), number)

    def unread(self, item: object) -> Iterable[str]:
        """Keys of an item that hold something and are not read."""
        if not isinstance(item, dict):
            return ()
        left = sorted(item.keys() - READ - {self.source_field})
        return [key for key in left if has_content(item[key])]

    def write_subset(self, numbers: Iterable[int], path: Path) -> None:
        """Writes the chosen items as they stand in the file, unknown keys too.

        They become a JSON array, or JSON lines where the name of the target ends in `.jsonl`.
        """
        text = json_lines if json_kind(path) in (".jsonl", ".ndjson") else json_array
        order = [int(number) for number in numbers]
        wanted = set(order)
        items = {number: item for number, item in enumerate(self.items()) if number in wanted}
        write_json(path, text(items[number] for number in order))


def unpacked(items: Iterable[object]) -> Iterator[object]:
    """Items, those of lists one by one: Qwen-VL packs samples that are trained on at once."""
    for item in items:
        if isinstance(item, list) and item:
            yield from item
        else:
            yield item


def images_of(item: Item) -> list[str]:
    """The paths of an item's images.

    Raises:
        Unusable: they are no paths.
    """
    images: object = next((item[key] for key in IMAGES if item.get(key)), [])
    images = [images] if isinstance(images, str) else images
    if not isinstance(images, list) or not all(isinstance(image, str) for image in images):
        raise Unusable(MALFORMED, "'image' must be a path or a list of paths")
    return images
