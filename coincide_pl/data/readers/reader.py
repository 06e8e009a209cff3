"""What every reader is: it turns a data set's own files into records, once."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from coincide_pl import ranks
from coincide_pl.data.image_states import file_states
from coincide_pl.data.images import unusable_images
from coincide_pl.data.readers.conversation import MALFORMED, llava_item, named, trainable
from coincide_pl.data.readers.findings import Findings
from coincide_pl.data.readers.json_text import json_array, write_json
from coincide_pl.data.readers.kept import code_digest, is_whole, left_out_as_before
from coincide_pl.data.readers.unread import refuse_marks
from coincide_pl.data.record import Record, Unusable
from coincide_pl.data.records import Notes, Records, place
from coincide_pl.errors import DataError
from coincide_pl.files import content_digest, unfinished, write_text

log = logging.getLogger(__name__)

FORMAT = 5
"""Raised when the same source would be read into other records, or they would be kept otherwise."""

OnError = Literal["stop", "skip"]
HALF = "holds half a surrogate pair, which is no text"


class Reader(ABC):
    """A data set on disk. Subclasses know one file format; nothing after them does.

    A subclass sets `image_root`, and has `files`, `items` and `record`. It keeps each argument of
    its constructor in an attribute of the argument's name.
    """

    image_root: Path
    """Folder that the records' image paths are relative to."""
    on_error: OnError = "stop"
    """What becomes of records and images that can't be used."""
    id_field = "id"
    """Key of an item's name."""
    trained_on = True
    """Whether records must have something to train on."""

    @abstractmethod
    def files(self) -> list[Path]:
        """The source files: when one changes, the records are read again."""

    @abstractmethod
    def items(self) -> Iterator[object]:
        """Yields what the files hold, in order.

        Raises:
            DataError: a file can't be read.
        """

    @abstractmethod
    def record(self, number: int, item: object) -> Record:
        """An item as a record, as it stands in the file.

        Args:
            number: of the item, counted over all files.
            item: what `items` gave.

        Raises:
            Unusable: naming the field.
        """

    def unread(self, item: object) -> Iterable[str]:
        """Keys of an item that hold something and are not read; here, of none it is known."""
        return ()

    def numbered(self) -> Iterator[tuple[int, object]]:
        """Yields the items that become records, each with its number among those of the files."""
        return enumerate(self.items())

    def options(self) -> dict[str, object]:
        """What the records depend on beside the files: by default all arguments of the constructor.

        Raises:
            DataError: an argument is not kept.
        """
        return self._arguments()

    @property
    def config(self) -> dict[str, object]:
        """Class path and arguments, as a config has them.

        Raises:
            DataError: an argument is not kept.
        """
        module = type(self).__module__
        public = "coincide_pl.data.readers" if module.startswith("coincide_pl.") else module
        arguments = {
            name: str(value) if isinstance(value, Path) else value
            for name, value in self._arguments().items()
        }
        return {"class_path": f"{public}.{type(self).__qualname__}", "init_args": arguments}

    def _arguments(self) -> dict[str, object]:
        """The constructor's arguments, each from where it is kept."""
        names = list(inspect.signature(type(self)).parameters)
        for name in names:
            if not hasattr(self, name):
                kind = type(self).__name__
                raise DataError(f"{kind}: its argument {name!r} must be kept in self.{name}")
        return {name: getattr(self, name) for name in names}

    def write_subset(self, numbers: Iterable[int], path: Path) -> None:
        """Writes some records, in the data set's own format; by default in LLaVA's.

        Args:
            numbers: of the records in the files, in the order wanted: `Records.numbers` at the
                indices of a selection.
            path: what to write.
        """
        order = [int(number) for number in numbers]
        wanted = set(order)
        chosen = {r.number: llava_item(r) for r in self if r.number in wanted}
        write_json(path, json_array(chosen[number] for number in order))

    def starts(self) -> list[tuple[str, int]]:
        """The files that records are in, each with the number of its first; known after reading."""
        return [(str(self.files()[0].resolve()), 0)]

    def images_in(self, cache: Path) -> Path:
        """The image folder.

        Args:
            cache: folder for what is made from the data.

        Raises:
            DataError: the reader names none.
        """
        if not hasattr(self, "image_root"):
            raise DataError(f"{type(self).__name__}: it must set self.image_root, the image folder")
        return Path(self.image_root)

    @property
    def images_named_by_content(self) -> bool:
        """Whether the reader wrote the images itself, each under a name that its content makes."""
        return False

    def __iter__(self) -> Iterator[Record]:
        """Yields the records in file order.

        Raises:
            DataError: naming file, record and field.
        """
        return self.read(Findings(), self.on_error)

    def read(self, findings: Findings, on_error: OnError) -> Iterator[Record]:
        """Yields the records in file order, and notes what it came upon.

        Args:
            findings: where it is noted.
            on_error: `stop` at the first record that can't be used, or `skip`.

        Raises:
            DataError: naming file, record and field.
        """
        for number, item in self.numbered():
            findings.count += 1
            try:
                record = self.record(number, item)
                findings.note_unread(self.unread(item))
                refuse_marks(record)
                if self.trained_on:
                    record, changes = trainable(record)
                    for change in changes:
                        findings.changes[change] += 1
                text = "".join([record.id, record.source or "", *record.images])
                "".join([text, *[turn.text for turn in record.turns]]).encode()
            except (Unusable, UnicodeEncodeError) as error:
                known = error if isinstance(error, Unusable) else Unusable(MALFORMED, HALF)
                line = f"{self._name(number, item)}: {known}"
                if on_error == "stop":
                    raise Unusable(known.kind, line) from error
                findings.add(number, known.kind, line)
                continue
            yield record if record.number == number else replace(record, number=number)
        if not findings.count:
            raise DataError(f"{self.files()[0]}: no records in it")

    def records(self, cache_dir: str | Path) -> Records:
        """The records, read the first time and memory-mapped from then on.

        With `skip`, the first reading opens all images. What was left out is listed in a file
        beside the records; all is read again when one of the images that were left out has changed.

        Args:
            cache_dir: folder for the Arrow file; its name tells what it was made from.

        Raises:
            DataError: naming file, record and field.
        """
        cache = Path(cache_dir).expanduser()
        self.image_root = self.images_in(cache)
        stats = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in self.files()]
        made_from = {
            "format": FORMAT,
            "reader": type(self).__qualname__,
            "code": code_digest(type(self)),
            "files": stats,
            "image_root": str(self.image_root.resolve()),
            "options": {**self.options(), "on_error": self.on_error},
        }
        text = json.dumps(made_from, default=str)
        key = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
        path = cache / f"{type(self).__name__}-{key}.arrow"
        digest = path.with_name(f".{path.name}.digest")
        records = Records(path) if is_whole(path, digest) else None
        if records is None or not left_out_as_before(records):
            log.info("reading %s", stats[0][0] if len(stats) == 1 else f"{len(stats)} files")
            records = self._write(path)
            write_text(digest, [content_digest(path)])
        self._say(records.notes.messages)
        return records

    def survey(self, cache_dir: str | Path, findings: Findings) -> Records:
        """The records that could be used if their images could; they are kept nowhere.

        Args:
            cache_dir: folder for the Arrow file, which has no name when this returns.
            findings: where the others are noted.

        Raises:
            DataError: a file can't be read.
        """
        cache = Path(cache_dir).expanduser()
        self.image_root = self.images_in(cache)
        path = unfinished(cache / f"{type(self).__name__}.arrow")
        records = self.read(findings, "skip")
        try:
            return Records.write(
                path,
                records,
                image_root=self.image_root.resolve(),
                sift=lambda found: (np.ones(len(found), bool), Notes(self.starts())),
            )
        finally:
            path.unlink(missing_ok=True)  # the memory stays mapped

    def _write(self, path: Path) -> Records:
        """Reads the data, leaves out what can't be used if so asked, and writes the Arrow file."""
        findings = Findings()
        listed = path.with_suffix(".left_out.txt")

        def sift(records: Records) -> tuple[npt.NDArray[np.bool_], Notes]:
            records.notes = notes = Notes(self.starts())
            notes.images_named_by_content = self.images_named_by_content
            numbers = records.numbers
            if self.on_error == "skip":
                names, rows = records.images
                unusable = unusable_images(records.image_root, list(names))
                for name, error in unusable.items():
                    for row in rows[names[name]].tolist():
                        line = f"{records.name(row)}: 'image': {error}"
                        findings.add(int(numbers[row]), error.kind, line)
                notes.left_out_images = file_states(records.image_root, unusable)
            if findings.lines:
                write_text(listed, findings.text())
            notes.messages = findings.messages(listed)
            kept = ~np.isin(numbers, list(findings.lines))
            if not kept.any():
                raise DataError(f"{self.files()[0]}: no record can be used; see {listed}")
            return kept, notes

        records = self.read(findings, self.on_error)
        return Records.write(path, records, image_root=self.image_root.resolve(), sift=sift)

    def _name(self, number: int, item: object) -> str:
        name = place(self.starts(), number)
        identity = item.get(self.id_field) if isinstance(item, dict) else None
        return f"{name} (id {str(identity)[:80]!r})" if named(identity) else name

    def _say(self, lines: list[str]) -> None:
        """Says once what became of the records; one process says it for all."""
        if not self._said and ranks.speaks():
            for line in lines:
                log.info("%s: %s", self.files()[0], line)
        self._said = True

    _said = False
