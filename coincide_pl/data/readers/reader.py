"""What every reader is: it turns a data set's own files into records, once."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from coincide_pl.data.images import unusable_images
from coincide_pl.data.readers.conversation import MALFORMED, trainable
from coincide_pl.data.records import Record, Records, Unusable, place
from coincide_pl.errors import DataError, printable
from coincide_pl.files import content_digest, is_as_it_was, write_text

log = logging.getLogger(__name__)

FORMAT = 2
"""Raised when the same source would be read into other records."""

OnError = Literal["stop", "skip"]
HALF = "holds half a surrogate pair, which is no text"


@dataclass
class Findings:
    """What a reading came upon.

    Attributes:
        count: how many records there are.
        lines: why a record can't be used, by its number; file, number and id in front.
        kinds: how many records can't be used, by kind.
        done: how many conversations were changed, by what was done to them.
    """

    count: int = 0
    lines: dict[int, str] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)
    done: Counter[str] = field(default_factory=Counter)

    def add(self, number: int, kind: str, line: str) -> None:
        """Notes a record that can't be used; the first reason counts."""
        if number not in self.lines:
            self.lines[number] = line
            self.kinds[kind] += 1

    def text(self) -> Iterator[str]:
        """The lines in the order of the records, ready to be written or printed."""
        for _, line in sorted(self.lines.items()):
            yield printable(line.encode(errors="replace").decode()) + "\n"


class Reader(ABC):
    """A data set on disk. Subclasses know one file format; nothing after them does."""

    image_root: Path
    """Folder that the records' image paths are relative to."""
    on_error: OnError = "stop"
    """What becomes of records and images that can't be used."""
    id_field = "id"
    """Key of an item's name."""
    trained_on = True
    """Whether records must have something to train on."""

    @abstractmethod
    def items(self) -> Iterator[Any]:
        """Yields what the files hold, in order.

        Raises:
            DataError: a file can't be read.
        """

    @abstractmethod
    def record(self, number: int, item: Any) -> Record:
        """An item as a record, as it stands in the file.

        Args:
            number: of the item, counted over all files.
            item: what `items` gave.

        Raises:
            Unusable: naming the field.
        """

    @abstractmethod
    def files(self) -> list[Path]:
        """The source files: when one changes, the records are read again."""

    @abstractmethod
    def options(self) -> dict[str, Any]:
        """What else the records depend on."""

    @abstractmethod
    def write_subset(self, numbers: Iterable[int], path: Path) -> None:
        """Writes some records, in the data set's own format.

        Args:
            numbers: of the records in the files, in the order wanted: `Records.numbers` at the
                indices of a selection.
            path: what to write.
        """

    def starts(self) -> list[tuple[str, int]]:
        """The files that records are in, each with the number of its first; known after reading."""
        return [(str(self.files()[0].resolve()), 0)]

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
        number = -1
        for number, item in enumerate(self.items()):
            try:
                record = self.record(number, item)
                if self.trained_on:
                    record, done = trainable(record)
                    for what in done:
                        findings.done[what] += 1
                text = "".join([record.id, record.source or "", *record.images])
                "".join([text, *[turn.text for turn in record.turns]]).encode()
            except (Unusable, UnicodeEncodeError) as error:
                known = error if isinstance(error, Unusable) else Unusable(MALFORMED, HALF)
                line = f"{self._name(number, item)}: {known}"
                if on_error == "stop":
                    raise Unusable(known.kind, line) from error
                findings.add(number, known.kind, line)
                continue
            yield record
        findings.count = number + 1
        if number < 0:
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
            "files": [list(stat) for stat in stats],
            "image_root": str(self.image_root.resolve()),
            "options": {**self.options(), "on_error": self.on_error},
        }
        key = hashlib.blake2b(json.dumps(made_from).encode(), digest_size=8).hexdigest()
        path = cache / f"{type(self).__name__}-{key}.arrow"
        digest = path.with_name(f".{path.name}.digest")
        records = Records(path) if is_whole(path, digest) else None
        if records is None or not as_left(records):
            log.info("reading %s", stats[0][0] if len(stats) == 1 else f"{len(stats)} files")
            records = self._write(path, made_from)
            write_text(digest, [content_digest(path)])
        self._tell(records.notes["told"])
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
        path = cache / f".{type(self).__name__}-{os.getpid()}.arrow"
        records = self.read(findings, "skip")
        try:
            return Records.write(
                path,
                records,
                image_root=self.image_root.resolve(),
                made_from={},
                sift=lambda found: (np.ones(len(found), bool), {"starts": self.starts()}),
            )
        finally:
            path.unlink(missing_ok=True)  # the memory stays mapped

    def images_in(self, cache: Path) -> Path:
        """The image folder, where `cache` is the folder for what is made from the data."""
        return self.image_root

    def _write(self, path: Path, made_from: dict[str, Any]) -> Records:
        findings = Findings()
        listed = path.with_suffix(".left_out.txt")

        def sift(records: Records) -> tuple[np.ndarray, dict[str, Any]]:
            records.notes = {"starts": self.starts()}
            numbers, bad = records.numbers, {}
            if self.on_error == "skip":
                names, rows = records.images
                unusable = unusable_images(records.image_root, list(names))
                for name, error in unusable.items():
                    for row in rows[names[name]].tolist():
                        line = f"{records.name(row)}: 'image': {error}"
                        findings.add(int(numbers[row]), error.kind, line)
                bad = states(records.image_root, unusable)
            told = [f"{count:,} {what}" for what, count in findings.done.items()]
            if findings.lines:
                write_text(listed, findings.text())
                kinds = ", ".join(f"{count:,} {kind}" for kind, count in findings.kinds.items())
                left_out = f"left out {len(findings.lines):,} of {findings.count:,} records"
                told.append(f"{left_out} ({kinds}); they are listed in {listed}")
            kept = ~np.isin(numbers, list(findings.lines))
            if not kept.any():
                raise DataError(f"{self.files()[0]}: no record can be used; see {listed}")
            return kept, {**records.notes, "bad": bad, "told": told}

        records = self.read(findings, self.on_error)
        return Records.write(
            path, records, image_root=self.image_root.resolve(), made_from=made_from, sift=sift
        )

    def _name(self, number: int, item: Any) -> str:
        name = place(self.starts(), number)
        identity = item.get(self.id_field) if isinstance(item, dict) else None
        return f"{name} (id {str(identity)[:80]!r})" if named(identity) else name

    def _tell(self, lines: list[str]) -> None:
        """Says once what became of the records; on a machine's first process alone."""
        if not self._told and os.environ.get("LOCAL_RANK", "0") == "0":
            for line in lines:
                log.info("%s: %s", self.files()[0], line)
        self._told = True

    _told = False


def named(identity: Any) -> bool:
    """Whether this can be the name of an item."""
    return isinstance(identity, str | int | float)


def identity_of(item: dict[str, Any], field: str, number: int) -> str:
    """The name of an item, or its number where it has none.

    Raises:
        Unusable: it is no name.
    """
    identity = item.get(field)
    if identity is None:
        return str(number)
    if not named(identity):
        raise Unusable(MALFORMED, f"{field!r} must be text or a number")
    return str(identity)


def as_left(records: Records) -> bool:
    """Whether the image folder is there, and images that were left out are as they were."""
    bad = records.notes["bad"]
    return records.image_root.is_dir() and states(records.image_root, bad) == bad


def states(root: Path, names: Iterable[str]) -> dict[str, list[int] | None]:
    """Size and time of change of some images; None where there is none."""
    found: dict[str, list[int] | None] = {}
    for name in names:
        try:
            stat = os.stat(os.path.join(root, name))
        except OSError:
            found[name] = None
        else:
            found[name] = [stat.st_size, stat.st_mtime_ns]
    return found


def is_whole(path: Path, digest: Path) -> bool:
    """Whether a file of records is there, and what it was when it was written."""
    with suppress(FileNotFoundError):
        if is_as_it_was(path, digest.read_text(errors="replace")):
            return True
        log.warning("%s: damaged", path)
    return False
