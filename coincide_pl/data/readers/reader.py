"""What every reader is: it turns a data set's own files into records, once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from coincide_pl.data.records import Record, Records

log = logging.getLogger(__name__)

FORMAT = 1
"""Raised when the same source would be read into other records."""


class Reader(ABC):
    """A data set on disk. Subclasses know one file format; nothing after them does."""

    image_root: Path
    """Folder that the records' image paths are relative to."""

    @abstractmethod
    def __iter__(self) -> Iterator[Record]:
        """Yields the records in file order.

        Raises:
            DataError: naming file, record and field.
        """

    @abstractmethod
    def files(self) -> list[Path]:
        """The source files: when one changes, the records are read again."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What else the records depend on."""

    @abstractmethod
    def write_subset(self, indices: Iterable[int], path: Path) -> None:
        """Writes the records at `indices`, in that order, in the data set's own format."""

    def records(self, cache_dir: str | Path) -> Records:
        """The records, read the first time and memory-mapped from then on.

        Args:
            cache_dir: folder for the Arrow file; its name tells what it was made from.
        """
        stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in self.files()]
        made_from = {
            "format": FORMAT,
            "reader": type(self).__qualname__,
            "files": [list(stat) for stat in stats],
            "image_root": str(self.image_root.resolve()),
            "options": self.options(),
        }
        key = hashlib.blake2b(json.dumps(made_from).encode(), digest_size=8).hexdigest()
        path = Path(cache_dir).expanduser() / f"{type(self).__name__}-{key}.arrow"
        if path.exists():
            return Records(path)
        log.info("reading %s", ", ".join(str(f) for f in self.files()))
        return Records.write(path, self, image_root=self.image_root.resolve(), made_from=made_from)


def write_text(path: str | Path, pieces: Iterable[str]) -> None:
    """Write a text file beside its place, then put it there."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        with aside.open("w", encoding="utf-8") as file:
            file.writelines(pieces)
        os.replace(aside, target)
    finally:
        aside.unlink(missing_ok=True)


def json_array(items: Iterable[Any]) -> Iterator[str]:
    """The text of a JSON array, one item a line."""
    separator = "[\n"
    for item in items:
        yield separator + json.dumps(item, ensure_ascii=False)
        separator = ",\n"
    yield "\n]\n" if separator.startswith(",") else "[]\n"
