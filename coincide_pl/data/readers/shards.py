"""Data in shards: WebDataset's and Energon's tar files, and folders of Parquet files."""

from __future__ import annotations

import hashlib
import json
import os
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow.types import is_large_list, is_list

from coincide_pl.data.readers.chat import SOURCES, ChatDataset
from coincide_pl.data.readers.conversation import MALFORMED, Item
from coincide_pl.data.readers.reader import OnError
from coincide_pl.data.readers.row_images import IMAGES
from coincide_pl.data.readers.shapes import check_names
from coincide_pl.data.readers.tables import split_of, write_rows
from coincide_pl.data.record import Record, Unusable
from coincide_pl.data.shards.copying import copy_samples
from coincide_pl.data.shards.lists import SUFFIXES, energon_split, shards_in, shards_of, unexpanded
from coincide_pl.data.shards.packed import Packed
from coincide_pl.data.shards.places import (
    LISTING,
    file_system,
    is_url,
    list_url,
    note_listing,
)
from coincide_pl.data.shards.samples import TarItem, item_of
from coincide_pl.data.shards.tar import read_index, write_index
from coincide_pl.errors import DataError
from coincide_pl.files import reason, write_text

INDEX_FORMAT = 3
"""Raised when indices would be made or kept otherwise."""


class ShardDataset(ChatDataset):
    """Records from shards, in a folder or at a URL; images are read out of them, never unpacked.

    A tar holds samples as WebDataset has them: members whose names agree up to the first dot, a
    `.json` with the conversation in any shape that `ChatDataset` reads (or a list of turns), and
    images. Where the JSON names its images, that is their order; else that of the members. Of a
    data set that Energon prepared, `.nv-meta/split.yaml` tells the shards and what is excluded.
    Parquet files have the columns that `ChatDataset` reads, with embedded images.

    An index of each shard is made once, several at a time, and kept in the cache; where that stops,
    it goes on later.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        source_field: str | None = None,
        on_error: OnError = "stop",
        columns: dict[str, str] | None = None,
        tags: dict[str, str] | None = None,
        num_threads: int = 8,
    ) -> None:
        """Finds the shards; none is read yet.

        Args:
            path: a tar or Parquet file, a folder of them, or a URL of either that fsspec opens,
                such as `s3://bucket/folder` or `hf://datasets/name/folder`.
            split: name of the split to read, where the files' or folders' names, or Energon's
                split.yaml, tell splits; else all shards are read.
            source_field: key that names the task or source; by default `task_name`, `source` or
                `data_source` where there is one; or else the folder of the shard, where it lies in
                one; `image`; or `text`.
            on_error: what to do at a record or image that can't be used: `stop`, or `skip` such
                records, count them, and list them in a file. All images are opened for that, once.
            columns: the data's names of columns, as `ChatDataset` takes them.
            tags: the messages' names of keys and senders, as `ChatDataset` takes them.
            num_threads: number of shards that are indexed at a time.

        Raises:
            DataError: there are no shards, or no such split.
        """
        check_names(columns or {}, tags or {})
        self.url = path if is_url(path) else None
        self.path = Path(path).expanduser()
        self.split, self.source_field, self.on_error = split, source_field, on_error
        self.columns, self.tags, self.num_threads = columns or {}, tags or {}, num_threads
        self._excluded: set[str] = set()
        self._starts, self._columns, self._known_keys = [], [], set()
        self._cache: Path | None = None
        self._shards: list[str] = []
        self._base = ""
        if self.url is not None:
            self.image_root = Path("~/.cache/coincide_pl").expanduser()  # until there is another
        else:
            if not self.path.exists():
                raise DataError(f"{path}: no such file or folder")
            self.image_root = self.path if self.path.is_dir() else self.path.parent
            self._base = str(self.image_root)
            found = [self.path] if self.path.is_file() else shards_in(self.path)
            self._take([str(file.relative_to(self.image_root)) for file in found])

    def _take(self, names: list[str]) -> None:
        """Keeps the shards of the split."""
        where = self.url or str(self.path)
        text = None if where.endswith(SUFFIXES) else energon_split(self._base)
        if text is not None:
            names, self._excluded = shards_of(where, text, self.split, names)
        else:
            splits = [split_of(Path(name)) for name in names]
            if self.split in splits:
                names = [n for n, its in zip(names, splits, strict=True) if its == self.split]
        kinds = {Path(name).suffix for name in names}
        if not names or not kinds <= set(SUFFIXES):
            raise DataError(f"{where}: no {' or '.join(SUFFIXES)} files in it")
        if len(kinds) > 1:
            raise DataError(f"{where}: holds both tar and Parquet files; name the folder of one")
        self._shards = names

    def files(self) -> list[Path]:
        """The shards; for those at a URL, the list of them in the cache."""
        if self.url is not None:
            return [self.image_root / LISTING] if self._cache else []
        return [self.image_root / name for name in self._shards]

    def options(self) -> dict[str, object]:
        """Split, what is excluded, and names of columns and tags."""
        kept = {"split": self.split, "url": self.url, "excluded": sorted(self._excluded)}
        return {**super().options(), **kept}

    def images_in(self, cache: Path) -> Path:
        """The folder of the shards; of those at a URL, a folder of the cache that stands for it."""
        self._cache = cache / "shards"
        if self.url is not None:
            shards = list_url(self.url, SUFFIXES)
            self._base = self.url.rstrip("/")
            if self._base.endswith(SUFFIXES):
                self._base = self._base.rpartition("/")[0]
            self._take([*shards])
            text = f"{self._base} {self.split}"
            digest = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
            self.image_root = self._cache / digest
            note_listing(self.image_root, self._base, {name: shards[name] for name in self._shards})
        return self.image_root

    @property
    def images_named_by_content(self) -> bool:
        """The shards are not ours."""
        return False

    def items(self) -> Iterator[object]:
        """Yields the samples, shard after shard, with the names of their images."""
        if self._cache is None:
            self.images_in(Path("~/.cache/coincide_pl").expanduser())
        self._starts, number = [], 0
        tar = self._shards[0].endswith(".tar")
        indices = self._indices() if tar else {}
        for shard in self._shards:
            place = self._place(shard)
            self._starts.append((place, number))
            found = self._samples(shard, indices[shard]) if tar else self._rows(shard, place)
            for item in found:
                number += 1
                yield item

    def record(self, number: int, item: object) -> Record:
        """A sample as a record."""
        if isinstance(item, TarItem) and item.fault:
            raise Unusable(MALFORMED, item.fault)
        return super().record(number, item)

    def image_path(self, image: object) -> str:
        """The name of an image in a shard, as it is."""
        if not isinstance(image, str) or Packed.of(image) is None:
            raise Unusable(MALFORMED, "an image is not in the shard")
        return image

    def write_subset(self, numbers: Iterable[int], path: Path) -> None:
        """Writes which samples are chosen: the keys, or rows, of each shard, in the order wanted.

        A target that ends as the shards do gets the samples themselves, with their images: a tar
        of those from tars, a Parquet file of those from local Parquet files.
        """
        if path.suffix == ".tar" and self._shards[0].endswith(".tar"):
            copy_samples(self._places(numbers), path)
            return
        if path.suffix == ".parquet" and self.url is None and self._shards[0].endswith(".parquet"):
            write_rows(self.files(), numbers, path)
            return
        write_text(path, [json.dumps({"shards": self.chosen(numbers)}, indent=1) + "\n"])

    def chosen(self, numbers: Iterable[int]) -> dict[str, list[str | int]]:
        """Keys of samples, or rows of Parquet files, by shard, in the order of `numbers`."""
        order = [int(number) for number in numbers]
        wanted = set(order)
        keys: dict[int, tuple[str, str | int]] = {}
        for number, item in enumerate(self.items()):
            if number in wanted:
                shard = self._shards[len(self._starts) - 1]
                row = number - self._starts[-1][1]
                keys[number] = shard, item.key if isinstance(item, TarItem) else row
        found: dict[str, list[str | int]] = {}
        for number in order:
            shard, key = keys[number]
            found.setdefault(shard, []).append(key)
        return found

    def _places(self, numbers: Iterable[int]) -> Iterator[tuple[str, Path, int]]:
        """The shard, its index, and the row there, of samples of tars in the order of `numbers`."""
        order = [int(number) for number in numbers]
        indices, starts, rows = self._indices(), [0], []
        for shard in self._shards:
            keys = enumerate(read_index(indices[shard], ["key"]))
            own = [i for i, one in keys if f"{shard}/{one.key}" not in self._excluded]
            rows.append(np.array(own, np.int64))
            starts.append(starts[-1] + len(own))
        for number in order:
            at = bisect_right(starts, number) - 1
            shard = self._shards[at]
            yield self._place(shard), indices[shard], int(rows[at][number - starts[at]])

    def _place(self, shard: str) -> str:
        return f"{self._base}/{shard}" if self.url else str(Path(self._base, shard).resolve())

    def energon_split(self, numbers: Iterable[int]) -> dict[str, object]:
        """Energon's `split.yaml` for some samples: their shards, and all others of these excluded.

        Raises:
            DataError: the shards are Parquet files, which Energon doesn't read.
        """
        if not self._shards[0].endswith(".tar"):
            raise DataError(f"{self.url or self.path}: Energon reads tar shards, and these are not")
        chosen = {shard: dict.fromkeys(keys) for shard, keys in self.chosen(numbers).items()}
        excluded = sorted(self._excluded)
        for item in self.items():
            shard = self._shards[len(self._starts) - 1]
            if shard in chosen and isinstance(item, TarItem) and item.key not in chosen[shard]:
                excluded.append(f"{shard}/{item.key}")
        parts = [*map(unexpanded, chosen)]
        return {"split_parts": {self.split: parts}, "exclude": [*map(unexpanded, excluded)]}

    def _indices(self) -> dict[str, Path]:
        """The index of each shard, made where it is not there yet."""
        assert self._cache is not None
        known = {}
        for shard in self._shards:
            state = Packed(shard, "", 0, 0).state(self.image_root)
            place = self._place(shard)
            text = json.dumps([INDEX_FORMAT, place, state])
            name = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
            known[shard] = self._cache / "indices" / f"{name}.arrow"

        def make(shard: str) -> None:
            write_index(self._place(shard), known[shard])

        left = [shard for shard in self._shards if not known[shard].is_file()]
        with ThreadPoolExecutor(max(1, self.num_threads)) as pool:
            list(pool.map(make, left))
        return known

    def _samples(self, shard: str, index: Path) -> Iterator[Item]:
        for sample in read_index(index):
            if f"{shard}/{sample.key}" not in self._excluded:
                yield item_of(shard, sample)

    def _rows(self, shard: str, place: str) -> Iterator[Item]:
        """The rows of a Parquet shard, with the names of their images in place of these."""
        system, path = file_system(place) if self.url else (None, place)
        try:
            with pq.ParquetFile(path, filesystem=system) as file:
                schema, names = file.schema_arrow, file.schema_arrow.names
                known = dict.fromkeys((self.columns.get("images"), *IMAGES))
                images = [name for name in known if name is not None and name in names]
                nested = [name for name in images if _is_nested(schema.field(name).type)]
                leaves = [file.schema.column(i).path for i in range(len(file.schema))]
                self._columns = [name for name in names if not self._reads(name)]
                wanted = [leaf for leaf in leaves if self._reads(leaf.partition(".")[0])]
                for name in images:  # their bytes are not read where anything else tells of them
                    own = [leaf for leaf in wanted if leaf.startswith(f"{name}.")]
                    heavy = [leaf for leaf in own if leaf.endswith(".bytes")]
                    if len(heavy) < len(own):
                        wanted = [leaf for leaf in wanted if leaf not in heavy]
                for group in range(file.num_row_groups):
                    first = dict.fromkeys(images, 0)
                    for row in file.read_row_group(group, wanted).to_pylist():
                        for name in images:
                            there = (row[name] or []) if name in nested else [row[name]]
                            row[name] = [
                                str(Packed(shard, name, group, place))
                                for place, image in enumerate(there, first[name])
                                if image is not None
                            ]
                            first[name] += len(there)
                        yield row
        except Exception as error:  # clients of file systems raise anything
            raise DataError(f"{place}: can't be read ({reason(error)})") from error

    def _source(self, item: Item, images: tuple[str, ...]) -> str:
        if self.source_field is not None:
            return super()._source(item, images)
        source = next((item[name] for name in SOURCES if item.get(name)), None)
        if isinstance(source, str):
            return source
        folder = os.path.dirname(self._starts[-1][0][len(self._base) :].lstrip("/"))
        return folder or ("image" if images else "text")


def _is_nested(kind: pa.DataType) -> bool:
    return bool(is_list(kind) or is_large_list(kind))
