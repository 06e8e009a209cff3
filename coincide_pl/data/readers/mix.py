"""Mixes of many data sets, from the lists that LLaVA-OneVision, InternVL and others keep."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from coincide_pl.data.readers.chat import ChatDataset
from coincide_pl.data.readers.listings import PICTURES, Entry, Listing, read_listing
from coincide_pl.data.readers.listings_written import entry_of, write_listing
from coincide_pl.data.readers.llava import LlavaJson
from coincide_pl.data.readers.reader import OnError, Reader
from coincide_pl.data.readers.shards import ShardDataset
from coincide_pl.data.readers.tables import json_kind
from coincide_pl.data.record import Record
from coincide_pl.data.shards.places import is_url
from coincide_pl.errors import CoincideError, DataError, FileError
from coincide_pl.files import reason

log = logging.getLogger(__name__)


class Mix(Reader):
    """Records of many data sets, as one list names them; each data set is a source.

    The list is LLaVA-OneVision's YAML (`datasets` with `json_path` and `sampling_strategy`),
    InternVL's meta JSON (`root`, `annotation`, `repeat_time`), Qwen-VL's registry
    (`annotation_path`, `data_path`; JSON, YAML or its own Python file, which is not run),
    LLaMA-Factory's `dataset_info.json`, or ms-swift's `dataset` (`path#500`).

    What a list takes once, several times or in part is there so often; copies stand next to each
    other. What is taken at random depends on `seed` alone.
    """

    def __init__(
        self,
        path: str,
        datasets: str | None = None,
        image_folder: str | None = None,
        source_field: str | None = None,
        copies: bool = True,
        seed: int = 0,
        on_error: OnError = "stop",
    ) -> None:
        """Reads the list, and finds its files; no record is read yet.

        Args:
            path: the list of data sets, a YAML, JSON or Python file. Relative paths in it are
                looked for in its folder, then in the current folder.
            datasets: names of the data sets to read, with commas between, each perhaps with a
                share, `name%50`, or a number of items, `name#500`, taken at random (default: all).
            image_folder: image folder of data sets for which the list names none (default: the
                folder of the list).
            source_field: key of a record that names its source (default: the name of its data set).
            copies: whether records that the list repeats are there several times; else once.
            seed: seed of what is taken at random.
            on_error: what to do at a record or image that can't be used: `stop`, or `skip` such
                records, count them, and list them in a file. All images are opened for that, once.

        Raises:
            DataError: the list, or a file or folder that it names, can't be used.
        """
        self.path = Path(path).expanduser()
        self.datasets, self.image_folder, self.source_field = datasets, image_folder, source_field
        self.copies, self.seed, self.on_error = copies, seed, on_error
        if not self.path.is_file():
            raise DataError(f"{path}: no such list of data sets")
        self.image_root = self.path.parent
        self.listing: Listing = read_listing(self.path, datasets)
        self.readers = [self._reader(entry) for entry in self.listing.entries]
        self._links = _link_names(self._names, [str(r.image_root.resolve()) for r in self.readers])
        """The name of each data set's image folder in that of the mix."""
        self._firsts: list[int] = []
        """The number of the first item of each data set that was begun."""

    def files(self) -> list[Path]:
        """The list, and all files of its data sets."""
        return [self.path, *(file for reader in self.readers for file in reader.files())]

    def options(self) -> dict[str, object]:
        """What is taken of the list."""
        names = ("datasets", "image_folder", "source_field", "copies", "seed")
        return {name: getattr(self, name) for name in names}

    def starts(self) -> list[tuple[str, int]]:
        """The files that were begun so far, each with the number of its first item."""
        begun = zip(self._firsts, self.readers, strict=False)
        found = [(file, first + at) for first, reader in begun for file, at in reader.starts()]
        return found or [(str(self.path.resolve()), 0)]

    def images_in(self, cache: Path) -> Path:
        """A folder of the cache with a link to the image folder of each data set."""
        roots = []
        for reader in self.readers:
            reader.image_root = reader.images_in(cache)
            roots.append(str(reader.image_root.resolve()))
        self._links = _link_names(self._names, roots)
        named = dict(zip(self._links, roots, strict=True))
        digest = hashlib.blake2b(json.dumps(named).encode(), digest_size=8).hexdigest()
        folder = cache / "mixes" / digest
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, root in named.items():
                with suppress(FileExistsError):
                    (folder / name).symlink_to(root, target_is_directory=True)
        except OSError as error:
            raise FileError(f"{folder}: can't be written ({reason(error)})") from error
        return folder

    @property
    def images_named_by_content(self) -> bool:
        """Whether the images of all data sets are embedded, and so lie in the cache."""
        return all(reader.images_named_by_content for reader in self.readers)

    def items(self) -> Iterator[object]:
        """Yields the items of all data sets, also those that are not taken."""
        for reader in self.readers:
            yield from reader.items()

    def numbered(self) -> Iterator[tuple[int, object]]:
        """Yields the items that are taken, as often as they are."""
        self._say_unread()
        self._firsts, first = [], 0
        for place, (entry, reader) in enumerate(self._parts):
            counts = None
            if entry.sampling.whole is None:
                size = sum(1 for _ in reader.items())
                counts = entry.sampling.counts(size, (self.seed, place))
            self._firsts.append(first)
            number = -1
            for number, item in enumerate(reader.items()):
                times = int(counts[number]) if counts is not None else entry.sampling.whole or 0
                for _ in range(times if self.copies else min(times, 1)):
                    yield first + number, item
            first += number + 1

    def record(self, number: int, item: object) -> Record:
        """An item as a record of its data set, under the name of that."""
        place = len(self._firsts) - 1
        entry, reader = self._parts[place]
        record = reader.record(number - self._firsts[place], item)
        images = tuple([f"{self._links[place]}/{image}" for image in record.images])
        source = entry.name if self.source_field is None else record.source
        return replace(record, images=images, source=source)

    def unread(self, item: object) -> Iterable[str]:
        """The keys that the reader of the data set does not read."""
        return self.readers[len(self._firsts) - 1].unread(item)

    def write_subset(self, numbers: Iterable[int], path: Path) -> None:
        """Writes a folder: each data set's chosen items in its own format, and a list of them.

        Args:
            numbers: of the items, in the order wanted within each data set.
            path: the folder to make.

        Raises:
            DataError: there is a file of that name, or the folder holds something.
        """
        path = Path(path)
        if path.is_file() or (path.is_dir() and any(path.iterdir())):
            raise DataError(f"{path}: is there already; a mix becomes a folder of its own")
        chosen: dict[int, list[int]] = {}
        ends = self._ends
        for number in map(int, numbers):
            place = next(place for place, end in enumerate(ends) if number < end)
            first = ends[place - 1] if place else 0
            chosen.setdefault(place, []).append(number - first)
        written: list[tuple[Entry, dict[str, object]]] = []
        for place, rows in sorted(chosen.items()):
            entry, reader = self._parts[place]
            target = path / f"{self._names[place]}{_suffix(reader)}"
            reader.write_subset(rows, target)
            root = str(Path(reader.image_root).resolve()) if entry.image_folder else None
            written.append((entry, entry_of(self.listing.kind, entry, target, root)))
        as_yaml = self.path.suffix in (".yaml", ".yml")
        write_listing(path, self.listing.kind, written, as_yaml)

    @cached_property
    def _names(self) -> list[str]:
        return _file_names(self.listing.entries)

    @cached_property
    def _parts(self) -> list[tuple[Entry, Reader]]:
        return list(zip(self.listing.entries, self.readers, strict=True))

    @cached_property
    def _ends(self) -> list[int]:
        """The number after the last item of each data set."""
        ends = [0]
        for reader in self.readers:
            ends.append(ends[-1] + sum(1 for _ in reader.items()))
        return ends[1:]

    def _reader(self, entry: Entry) -> Reader:
        """The reader of a data set."""
        path = self._located(entry.path)
        media = self._located(self.image_folder) if self.image_folder else self.path.parent
        folder = str(self._located(entry.image_folder) if entry.image_folder else media)
        try:
            if is_url(entry.path) or _is_of_tars(path):
                place = entry.path if is_url(entry.path) else str(path)
                return ShardDataset(
                    place, entry.split, self.source_field, columns=entry.columns, tags=entry.tags
                )
            if self.listing.kind in ("LLaMA-Factory", "ms-swift") or not json_kind(path):
                return ChatDataset(
                    str(path),
                    entry.split,
                    folder,
                    self.source_field,
                    columns=entry.columns,
                    tags=entry.tags,
                )
            return LlavaJson(str(path), folder, self.source_field)
        except CoincideError as error:
            raise DataError(f"{self.path}: {entry.name!r}: {error}") from error

    def _located(self, path: str) -> Path:
        """A path of the list: in its folder, where there is such a file, or as it stands."""
        beside = self.path.parent / Path(path).expanduser()
        return beside if beside.exists() else Path(path).expanduser()

    def _say_unread(self) -> None:
        """Says once which keys of the list are not read."""
        keys = Counter(key for entry in self.listing.entries for key in entry.unread)
        for key, count in sorted(keys.items()):
            why = "; images are processed by the model's own" if key in PICTURES else ""
            log.warning("%s: %r of %d data sets is not read%s", self.path, key, count, why)


def _link_names(names: list[str], roots: list[str]) -> list[str]:
    """A name for the image folder of each data set; those with one folder share it."""
    by_root: dict[str, str] = {}
    for name, root in zip(names, roots, strict=True):
        by_root.setdefault(root, name)
    return [by_root[root] for root in roots]


def _file_names(entries: list[Entry]) -> list[str]:
    """A name of a file or folder for each data set, all different."""
    names: list[str] = []
    for entry in entries:
        name = re.sub(r"[^\w.+-]+", "_", entry.name).strip(".")[:100] or "data"
        names.append(f"{name}~{len(names)}" if name in names else name)
    return names


def _is_of_tars(path: Path) -> bool:
    """Whether a data set is a tar shard, or a folder of some."""
    return path.suffix == ".tar" or (path.is_dir() and any(path.rglob("*.tar")))


def _suffix(reader: Reader) -> str:
    """How the name of a file in a reader's format ends; nothing for a folder of Arrow files."""
    if isinstance(reader, ShardDataset):
        return ".json"
    file = reader.files()[0]
    suffix = json_kind(file) or file.suffix
    return "" if suffix == ".arrow" else suffix
