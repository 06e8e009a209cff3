"""Hugging Face data sets in the chat format, from disk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cached_property
from pathlib import Path

from coincide_pl.data.readers.conversation import (
    MALFORMED,
    Item,
    identity_of,
    inside,
    listed,
    other_reader,
    source_of,
    turns_of,
    with_system,
)
from coincide_pl.data.readers.reader import OnError, Reader
from coincide_pl.data.readers.row_images import (
    CONVERSATIONS,
    DATA_URL,
    IMAGES,
    RowImages,
    decoded,
    is_embedded,
)
from coincide_pl.data.readers.shapes import SHAPED, as_chat, check_names
from coincide_pl.data.readers.tables import find_files, rows, write_rows
from coincide_pl.data.readers.unread import UNREAD_KEYS, has_content, is_media, refuse_unread
from coincide_pl.data.record import Record, Unusable
from coincide_pl.errors import DataError, FileError
from coincide_pl.files import reason, unfinished

SOURCES = ("task_name", "source", "data_source")
"""Columns that name the task or source, the first that holds a text."""


class ChatDataset(Reader):
    """Records from a data set with `messages`, as TRL, LLaMA-Factory and Qwen have them.

    A message has a `role` and a `content`: text, or a list of parts such as `{"type": "image"}` and
    `{"type": "text", "text": ...}`. A part may hold its own image; other parts, and each `<image>`
    in a user's text, show the next of the row's `images` (or `image`): paths, or the bytes that
    `datasets` embeds. An image part stands in a line of its own. Images that no part shows are put
    in front of the first message of the user. `conversations` with `from` and `value` are read too,
    as are messages with these keys; pairs of question and answer, as The Cauldron and FineVision
    have them; and a question with its answer, as alpaca and ms-swift have them.

    Embedded images, and those that are data URLs, are written to the folder `images` of the cache,
    once, under a name that their content makes; where that stops, it goes on later.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        image_folder: str | None = None,
        source_field: str | None = None,
        on_error: OnError = "stop",
        columns: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
    ) -> None:
        """Remembers where the data lie; no row is read yet.

        Args:
            path: the data, a Parquet, Arrow, JSONL or JSON file; or a folder, cloned from the Hub,
                or written by `save_to_disk`.
            split: name of the split to read, where the files' or folders' names tell splits; else
                all files are read.
            image_folder: folder that image paths are relative to (default: the folder of the
                data).
            source_field: column that names the task or source; by default `task_name`, `source` or
                `data_source` where there is one; or else the folder of the data file, where there
                are several; the first folder of the image path; or `text`.
            on_error: what to do at a record or image that can't be used: `stop`, or `skip` such
                records, count them, and list them in a file. All images are opened for that, once.
            columns: the data's names of columns, by what they hold, as in LLaMA-Factory's
                dataset_info.json: messages, images, system, prompt, query, response, history.
            tags: the messages' names of keys and senders, as in LLaMA-Factory's dataset_info.json:
                role_tag, content_tag, user_tag, assistant_tag, system_tag.

        Raises:
            DataError: there are no such files, or no such folder; or columns or tags are unknown.
        """
        self.columns, self.tags = columns or {}, tags or {}
        check_names(self.columns, self.tags)
        self.path = Path(path).expanduser()
        self.split = split
        self.image_folder = image_folder
        self.source_field = source_field
        self.on_error = on_error
        self._files = find_files(self.path, split)
        for file in self._files:
            if not file.is_file():
                raise DataError(f"{file}: no such data file")
        folder = self.path if self.path.is_dir() else self.path.parent
        self.image_root = Path(image_folder).expanduser() if image_folder else folder
        if not self.image_root.is_dir():
            raise DataError(f"{image_folder}: no such image folder")
        self._starts: list[tuple[str, int]] = []
        self._known_keys: set[str] = set()
        self._columns: list[str] = []
        """Columns of the file that is read now that are not."""
        self._store: Path | None = None
        self._subset: str | None = None

    def files(self) -> list[Path]:
        """The data files of the split."""
        return self._files

    def options(self) -> dict[str, object]:
        """The names of columns and tags."""
        names = {"columns": self.columns, "tags": self.tags}
        return {"source_field": self.source_field, **{k: v for k, v in names.items() if v}}

    def starts(self) -> list[tuple[str, int]]:
        """The files that were begun so far, each with the number of its first row."""
        return self._starts

    def images_in(self, cache: Path) -> Path:
        """The image folder; for embedded images, a folder of the cache."""
        if self._embeds:
            self._store = cache / "images"
        return self._store or self.image_root

    @property
    def images_named_by_content(self) -> bool:
        """Whether the images are embedded in the data, and so lie in the cache."""
        return self._embeds

    def items(self) -> Iterator[object]:
        """Yields the rows, file after file, with the columns that are read."""
        self._starts, number = [], 0
        several = len({file.parent for file in self._files}) > 1
        for file in self._files:
            self._starts.append((str(file.resolve()), number))
            self._subset = file.parent.name if several else None
            self._columns = []
            for item in rows(file, self._wants):
                number += 1
                yield item

    def _wants(self, column: str) -> bool:
        """Whether a column of a file is read; notes it where it is not."""
        wanted = self._reads(column)
        self._columns += [] if wanted else [column]
        return wanted

    def _reads(self, column: str) -> bool:
        """Whether a column is read, be it for what must not be dropped in silence."""
        known = (
            *CONVERSATIONS,
            *IMAGES,
            *SHAPED,
            *UNREAD_KEYS,
            *SOURCES,
            "id",
            "system",
            "objects",
        )
        named = column in (self.source_field, *self.columns.values())
        return named or column in known or is_media(column)

    def record(self, number: int, item: object) -> Record:
        """A row as a record."""
        if not isinstance(item, dict):
            raise Unusable(MALFORMED, f"is a {type(item).__name__}, not an object")
        identity = identity_of(item, "id", number)
        item = as_chat(item, self.columns, self.tags)
        refuse_unread(item, IMAGES)
        images = RowImages(item, self.image_path)
        field = next((name for name in CONVERSATIONS if item.get(name) is not None), "messages")
        conversation = listed(item.get(field), field)
        who, what = CONVERSATIONS[field]
        if isinstance(conversation, list) and conversation and isinstance(conversation[0], dict):
            if conversation[0].get("role") is not None:
                who, what = CONVERSATIONS["messages"]
            elif conversation[0].get("from") is not None:
                who, what = CONVERSATIONS["conversations"]
        if not conversation:
            raise Unusable(MALFORMED, f"no {field!r}{other_reader(item, 'ChatDataset')}")
        turns = turns_of(conversation, field, who, what, images.text)
        turns = with_system(turns, item.get("system"))
        paths = (*images.unshown(), *images.shown)
        return Record(identity, paths, turns, self._source(item, paths), number)

    def unread(self, item: object) -> Iterable[str]:
        """Keys or columns that hold something and are not read."""
        if not isinstance(item, dict):
            return ()
        keys = item.keys() - self._known_keys
        self._known_keys |= {key for key in keys if self._reads(key)}
        left = sorted(keys - self._known_keys)
        return [*(key for key in left if has_content(item[key])), *self._columns]

    def write_subset(self, numbers: Iterable[int], path: Path) -> None:
        """Writes the chosen rows as they stand, all columns: a file, or a folder of Arrow files."""
        write_rows(self._files, numbers, Path(path))

    def image_path(self, image: object) -> str:
        """The path of an image of a row, within the image folder.

        Raises:
            Unusable: it is no image, leads out of the folder, or is embedded and others are not.
        """
        data, path = (image, None) if isinstance(image, bytes) else (None, image)
        if isinstance(image, dict):
            data, path = image.get("bytes"), image.get("path") or image.get("url")
        if data is None and isinstance(path, str) and DATA_URL.match(path):
            data = decoded(path)
        if not (isinstance(data, bytes) or (data is None and isinstance(path, str) and path)):
            raise Unusable(MALFORMED, "an image must be a path or bytes")
        if (data is not None) != self._embeds:
            kinds = ("a path", "embedded") if self._embeds else ("embedded", "a path")
            raise Unusable(MALFORMED, "an image is {}, where the first one is {}".format(*kinds))
        if data is not None:
            return self._keep(data)
        path = str(path).removeprefix("file://")
        if re.match(r"\w+://", path):
            raise Unusable(MALFORMED, f"an image is at {path[:80]!r}; images must be on disk")
        return inside(path, self.image_root)

    @cached_property
    def _embeds(self) -> bool:
        """Whether the first image of the data set is embedded."""
        own = self.columns.values()
        for file in self._files:
            for row in rows(file, lambda name: name in (*CONVERSATIONS, *IMAGES, *own)):
                if not isinstance(row, dict):
                    continue
                with suppress(Unusable):  # it is named when the row is read
                    image = next(RowImages(as_chat(row, self.columns, self.tags), str).all(), None)
                    if image is not None:
                        return is_embedded(image)
        return False

    def _keep(self, data: bytes) -> str:
        """Writes an image to the cache, if it is not there yet; returns its path there."""
        digest = hashlib.blake2b(data, digest_size=16).hexdigest()
        name = f"{digest[:2]}/{digest[2:]}"
        if self._store is not None:
            target = self._store / name
            try:
                there = target.stat().st_size == len(data)
            except OSError:
                there = False
            if not there:
                aside = unfinished(target)
                try:
                    target.parent.mkdir(parents=True, exist_ok=True)
                    aside.write_bytes(data)
                    os.replace(aside, target)
                except OSError as error:
                    aside.unlink(missing_ok=True)
                    raise FileError(f"{target}: can't be written ({reason(error)})") from error
        return name

    def _source(self, item: Item, images: tuple[str, ...]) -> str:
        if self.source_field is None:
            source = next((item[name] for name in SOURCES if item.get(name)), None)
            if isinstance(source, str):
                return source
            if self._subset is not None:
                return self._subset
            if images and self._embeds:
                return "image"
        return source_of(item, images, self.source_field)
