"""The files of a Hugging Face data set on disk: Parquet, Arrow, JSON lines or JSON."""

from __future__ import annotations

import json
import logging
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from hashlib import file_digest
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from coincide_pl.data.readers.json_text import json_array, json_items, json_lines, write_json
from coincide_pl.errors import DataError
from coincide_pl.files import PART, beside

log = logging.getLogger(__name__)

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Words in the name of a file or folder that tell its split."""
SUFFIXES = (".parquet", ".arrow", ".jsonl", ".ndjson", ".json")
PACKED = (".gz", ".zst")
"""How the names of compressed JSON files end."""
ROWS_PER_BATCH = 128
ABOUT = ("dataset_info.json", "dataset_infos.json", "state.json", "dataset_dict.json")
"""Files that tell of data and hold none."""


def find_files(path: Path, split: str) -> list[Path]:
    """The data files of a split, in the order of their names.

    Args:
        path: one file, or a folder that `save_to_disk` wrote or that was cloned from the Hub.
        split: its name; all files are of it where no name tells a split.

    Raises:
        DataError: there are none.
    """
    if path.is_file():
        return [path]
    if not path.is_dir():
        raise DataError(f"{path}: no such data file or folder")
    if (path / "dataset_dict.json").is_file():
        path = path / split
        if not path.is_dir():
            there = ", ".join(sorted(p.parent.name for p in path.parent.glob("*/state.json")))
            raise DataError(f"{path.parent}: no split {split!r}; there are {there or 'none'}")
    if (path / "state.json").is_file():
        try:
            listed = json.loads((path / "state.json").read_text())["_data_files"]
            return [path / Path(one["filename"]).name for one in listed]
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{path / 'state.json'}: names no data files") from error
    for suffix in SUFFIXES:
        found = [file for packed in ("", *PACKED) for file in path.rglob(f"*{suffix}{packed}")]
        inside = sorted(file.relative_to(path) for file in found)
        seen = [f for f in inside if f.name not in ABOUT and not any(p[0] == "." for p in f.parts)]
        if not seen:
            continue
        splits = [split_of(file) for file in seen]
        if not any(splits):
            return [path / file for file in seen]
        chosen = [path / f for f, its in zip(seen, splits, strict=True) if its == split]
        if not chosen and not set(splits) & set(SPLITS.values()):
            return [path / file for file in seen]  # such as llava-00000-of-00005.parquet
        if not chosen:
            there = ", ".join(sorted({its for its in splits if its}))
            raise DataError(f"{path}: no files of split {split!r}; there are {there}")
        if untold := [f"{path / f}" for f, its in zip(seen, splits, strict=True) if its is None]:
            log.warning("%d files tell no split and are not read, as %s", len(untold), untold[0])
        return chosen
    raise DataError(f"{path}: no {', '.join(SUFFIXES)} files in it")


def json_kind(file: Path) -> str | None:
    """`.json`, `.jsonl` or `.ndjson` by the name of a file, compressed or not; None for others."""
    suffix = Path(file.stem if file.suffix in PACKED else file.name).suffix
    return suffix if suffix in (".json", ".jsonl", ".ndjson") else None


def split_of(file: Path) -> str | None:
    """The split that the name of a file tells, or else that of its folder; None if neither does."""
    named = re.match(r"(.+)-\d{5}-of-\d{5}", file.name)
    if named:
        return SPLITS.get(named[1], named[1])
    for name in (file.stem, *reversed(file.parent.parts)):
        words = re.split(r"[^a-zA-Z]+", name)
        if found := next((SPLITS[word] for word in words if word in SPLITS), None):
            return found
    return None


def rows(file: Path, wanted: Callable[[str], bool]) -> Iterator[object]:
    """The rows of a file; of Parquet and Arrow, objects with just the columns that are wanted.

    Raises:
        DataError: it can't be read, or has no such columns.
    """
    if json_kind(file):
        yield from json_items(file)
        return
    for batch in batches(file, wanted):
        yield from batch.to_pylist()


def batches(file: Path, wanted: Callable[[str], bool] = lambda _: True) -> Iterator[pa.RecordBatch]:
    """The rows of a Parquet or Arrow file, `ROWS_PER_BATCH` or less at a time.

    Args:
        file: Arrow in the stream format, which `save_to_disk` writes, or in the file format.
        wanted: which columns are read, by name; all by default.

    Raises:
        DataError: the file can't be read.
    """
    try:
        if file.suffix == ".parquet":
            with pq.ParquetFile(file, memory_map=True, buffer_size=1 << 20) as table:
                names = [*filter(wanted, table.schema_arrow.names)]
                yield from table.iter_batches(ROWS_PER_BATCH, columns=names)
            return
        with pa.memory_map(str(file)) as source:
            stream = _open_arrow(source)
            names = [*filter(wanted, stream.schema.names)]
            for whole in stream.batches:
                for start in range(0, len(whole), ROWS_PER_BATCH):
                    yield whole.select(names).slice(start, ROWS_PER_BATCH)
    except (OSError, pa.ArrowException) as error:
        with file.open("rb") as text:
            pointer = text.read(40).startswith(b"version https://git-lfs")
        cause = " ".join(str(error).split())
        cause = "a pointer of Git LFS; run git lfs pull" if pointer else cause
        raise DataError(f"{file}: can't be read ({cause})") from error


def schema_of(file: Path) -> pa.Schema:
    """The columns of a Parquet or Arrow file, with what the data set says of them."""
    if file.suffix == ".parquet":
        return pq.read_schema(file)
    with pa.memory_map(str(file)) as source:
        return _open_arrow(source).schema


def write_rows(files: Sequence[Path], numbers: Iterable[int], target: Path) -> None:
    """Writes some rows as they stand in their files, in the same format.

    JSON and Parquet become one file; of Arrow files `target` becomes a folder that
    `datasets.load_from_disk` reads. Rows with images may be larger than memory, so they go through
    a file beside the target, in the order in which they are read.

    Args:
        files: of the data set.
        numbers: counted over all files, in the order wanted.
        target: what to write.

    Raises:
        DataError: a folder is there already.
    """
    order = [int(number) for number in numbers]
    if kind := json_kind(files[0]):
        wanted = set(order)
        items = enumerate(chain.from_iterable(map(json_items, files)))
        chosen = {number: item for number, item in items if number in wanted}
        text = json_array if kind == ".json" else json_lines
        write_json(target, text(chosen[number] for number in order))
        return
    if target.is_dir():
        raise DataError(f"{target}: is there already")
    schema = schema_of(files[0])
    with beside(target) as aside:
        unsorted = aside.with_suffix(f".rows{PART}")
        with pa.OSFile(str(unsorted), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
            places: dict[int, int] = {}
            for number, row in _picked(files, set(order)):
                places[number] = len(places)
                writer.write_batch(row if row.schema == schema else row.cast(schema))
        with pa.memory_map(str(unsorted)) as source:
            held = pa.ipc.open_file(source)
            parts = (
                pa.Table.from_batches([held.get_batch(places[n]) for n in part], schema)
                for part in (order[i : i + 100] for i in range(0, len(order), 100))
            )
            write = _write_parquet if files[0].suffix == ".parquet" else _save_to_disk
            write(parts, schema, aside, files[0].parent)


def _picked(files: Sequence[Path], wanted: set[int]) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Yields the wanted rows, each as a batch of one, with its number."""
    first = 0
    for batch in chain.from_iterable(map(batches, files)):
        for at in range(len(batch)):
            if first + at in wanted:
                yield first + at, batch.slice(at, 1)
        first += len(batch)


def _write_parquet(parts: Iterator[pa.Table], schema: pa.Schema, path: Path, source: Path) -> None:
    with pq.ParquetWriter(path, schema) as writer:
        for part in parts:
            writer.write_table(part.combine_chunks())


def _save_to_disk(parts: Iterator[pa.Table], schema: pa.Schema, path: Path, source: Path) -> None:
    """Writes a folder as `datasets.load_from_disk` reads it."""
    path.mkdir()
    name = "data-00000-of-00001.arrow"
    with pa.OSFile(str(path / name), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        for part in parts:
            writer.write_table(part.combine_chunks())
    with (path / name).open("rb") as file:
        digest = file_digest(file, "blake2b").hexdigest()
    state: dict[str, object] = {
        "_data_files": [{"filename": name}],
        "_fingerprint": digest[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    (path / "state.json").write_text(json.dumps(state, indent=1))
    if (source / "dataset_info.json").is_file():
        shutil.copy(source / "dataset_info.json", path)
    else:
        about = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {})
        (path / "dataset_info.json").write_text(json.dumps(about))


def _open_arrow(source: pa.NativeFile) -> _Batches:
    """Opens Arrow in the stream format, which `save_to_disk` writes, or in the file format."""
    if source.read(6) == b"ARROW1":
        file = pa.ipc.open_file(source)
        return _Batches(file.schema, (file.get_batch(i) for i in range(file.num_record_batches)))
    source.seek(0)
    stream = pa.ipc.open_stream(source)
    return _Batches(stream.schema, stream)


@dataclass
class _Batches:
    schema: pa.Schema
    batches: Iterable[pa.RecordBatch]
