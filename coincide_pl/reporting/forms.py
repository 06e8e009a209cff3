"""The forms in which chosen records are written for others, and how each is read back."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import yaml

from coincide_pl.data.readers import LlavaJson, Mix, Reader, ShardDataset
from coincide_pl.data.readers.conversation import Item, llava_item
from coincide_pl.data.readers.json_text import json_array, write_json
from coincide_pl.data.record import Record
from coincide_pl.data.shards.lists import LOADER, SUFFIXES
from coincide_pl.data.shards.packed import MARK
from coincide_pl.errors import CoincideError, DataError
from coincide_pl.files import beside, reading, write_text
from coincide_pl.reporting.config import option
from coincide_pl.reporting.origin import Origin

Form = Literal["own", "rows", "ids", "llava", "llama_factory", "members", "energon"]
"""The data set's own format; places in its files; names; another trainer's; parts of shards."""
AGAIN = "write it again"
DUMPER = getattr(yaml, "CSafeDumper", yaml.SafeDumper)
"""The safe dumper, in C where there is one: exclusions may be many."""


def write(origin: Origin, target: Path, form: Form) -> None:
    """Write the selected records, in the order of picking.

    Args:
        origin: the selection, and the data that it was made from.
        target: the file, or the folder.
        form: what is written.

    Raises:
        CoincideError: it can't be written, or not of these data.
    """
    numbers = origin.records.numbers[origin.selection.indices]
    match form:
        case "own":
            origin.reader.write_subset(numbers.tolist(), target)
        case "rows":
            _write_rows(numbers, target)
        case "ids":
            if target.suffix not in (".json", ".txt"):
                raise DataError(f"{target}: ids are written to a .json or .txt file")
            ids = [record.id for record in _chosen(origin)]
            lines = target.suffix == ".txt"
            write_text(target, (f"{i}\n" for i in ids) if lines else json_array(ids))
        case "llava":
            write_json(target, json_array(_llava_item(origin, r) for r in _chosen(origin)))
        case "llama_factory":
            _write_llama_factory(origin, target)
        case "members":
            members = _shards(origin).chosen(numbers.tolist())
            write_text(target, [json.dumps({"shards": members}, indent=1) + "\n"])
        case "energon":
            content = _shards(origin).energon_split(numbers.tolist())
            write_text(target, [yaml.dump(content, Dumper=DUMPER, sort_keys=False)])


def check(origin: Origin, target: Path, form: Form) -> None:
    """Read back what was written, and compare it with the selection.

    Args:
        origin: the selection, and the data that it was made from.
        target: the file, or the folder.
        form: what was written.

    Raises:
        CoincideError: it can't be read, or holds something else.
    """
    expected: object
    found: object
    numbers = origin.records.numbers[origin.selection.indices].tolist()
    with reading(target, AGAIN):
        match form:
            case "rows":
                npy = target.suffix == ".npy"
                found = np.load(target).tolist() if npy else json.loads(target.read_text())
                expected = numbers
            case "ids":
                text = target.read_text()
                found = text.splitlines() if target.suffix == ".txt" else json.loads(text)
                expected = [record.id for record in _chosen(origin)]
            case "members":
                found = json.loads(target.read_text())["shards"]
                expected = _shards(origin).chosen(numbers)
            case "energon":
                found = yaml.load(target.read_text(), LOADER)
                expected = _shards(origin).energon_split(numbers)
            case _:
                if isinstance(origin.reader, ShardDataset) and target.suffix not in SUFFIXES:
                    check(origin, target, "members")
                    return
                found, expected = _records_there(origin, target, form), [*_chosen(origin)]
                found, expected = [*map(_content, found)], [*map(_content, expected)]
                if isinstance(origin.reader, Mix) and form == "own":  # a file for each data set
                    found, expected = sorted(found), sorted(expected)
    if found != expected:
        raise DataError(f"{target}: does not hold what was selected; {AGAIN}")


def _chosen(origin: Origin) -> Iterable[Record]:
    return (origin.records[int(row)] for row in origin.selection.indices)


def _content(record: Record) -> tuple[list[str], list[tuple[str, str]]]:
    """What must be the same wherever images lie."""
    images = ["" if MARK in image else os.path.basename(image) for image in record.images]
    return images, [(turn.role, turn.text) for turn in record.turns]


def _records_there(origin: Origin, target: Path, form: Form) -> list[Record]:
    """The records that were written, by the reader of their format."""
    root = str(origin.records.image_root)
    if form == "llama_factory":
        return list(Mix(str(target / "dataset_info.json"), image_folder="/"))
    kind = type(origin.reader)
    if form == "llava" or kind.write_subset is Reader.write_subset:
        return list(LlavaJson(str(target), "/" if isinstance(origin.reader, Mix) else root))
    known = inspect.signature(kind).parameters
    if "path" not in known:
        raise CoincideError(f"{target}: {kind.__name__} does not say how to read it back")
    arguments = {**(option(origin.config, "data.train.init_args") or {}), "path": str(target)}
    if isinstance(origin.reader, Mix):
        lists = [p for p in target.iterdir() if p.stem in ("mix", "dataset_info")]
        arguments |= {"path": str(lists[0]), "datasets": None}
    if "image_folder" in known and not arguments.get("image_folder"):
        folder = origin.reader.path.parent if isinstance(origin.reader, Mix) else root
        arguments["image_folder"] = str(folder)
    make: Callable[..., Reader] = kind
    return list(make(**arguments))


def _write_rows(numbers: npt.NDArray[np.int64], target: Path) -> None:
    if target.suffix == ".npy":
        with beside(target) as aside, aside.open("wb") as file:
            np.save(file, numbers)
    elif target.suffix == ".json":
        write_text(target, [json.dumps(numbers.tolist()) + "\n"])
    else:
        raise DataError(f"{target}: rows are written to a .npy or .json file")


def _paths(origin: Origin, record: Record) -> list[str]:
    """A record's image paths: relative to the image folder, but for those of a mix."""
    if any(MARK in image for image in record.images):
        raise DataError("images lie in shards, which no other trainer reads; name form members")
    root = origin.records.image_root
    if not isinstance(origin.reader, Mix):
        return list(record.images)
    return [os.path.join(os.path.realpath(root / p), r) for p, _, r in _split(record.images)]


def _split(images: Iterable[str]) -> list[tuple[str, str, str]]:
    return [image.partition("/") for image in images]


def _llava_item(origin: Origin, record: Record) -> Item:
    item = llava_item(record)
    paths = _paths(origin, record)
    if paths:
        item["image"] = paths[0] if len(paths) == 1 else paths
    return item


def _write_llama_factory(origin: Origin, target: Path) -> None:
    """A folder with a data file and the `dataset_info.json` that names it."""
    root = origin.records.image_root
    items = [
        {
            "id": record.id,
            "messages": [{"role": turn.role, "content": turn.text} for turn in record.turns],
            "images": [str(root / path) for path in _paths(origin, record)],
        }
        for record in _chosen(origin)
    ]
    tags = {"role_tag": "role", "content_tag": "content", "user_tag": "user"}
    tags |= {"assistant_tag": "assistant", "system_tag": "system"}
    columns = {"messages": "messages", "images": "images"}
    about = {"file_name": "chosen.json", "formatting": "sharegpt"}
    entry = {target.name: {**about, "columns": columns, "tags": tags}}
    write_text(target / "chosen.json", json_array(items))
    write_text(target / "dataset_info.json", [json.dumps(entry, indent=2) + "\n"])


def _shards(origin: Origin) -> ShardDataset:
    if not isinstance(origin.reader, ShardDataset):
        raise DataError(f"{origin.place}: its data are not in shards")
    return origin.reader
