"""Lists of data sets, as trainers keep them, turned into entries of one kind."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import yaml

from coincide_pl.data.readers.sampling import Sampling, strategy, with_sampling
from coincide_pl.data.readers.shapes import COLUMNS, PREFERENCES
from coincide_pl.errors import DataError
from coincide_pl.files import reason

Kind = Literal["LLaVA-OneVision", "InternVL", "Qwen-VL", "LLaMA-Factory", "ms-swift"]
"""Whose list it is."""
MARKS: dict[str, Kind] = {
    "json_path": "LLaVA-OneVision",
    "annotation_path": "Qwen-VL",
    "annotation": "InternVL",
    "dataset_path": "ms-swift",
    "file_name": "LLaMA-Factory",
    "hf_hub_url": "LLaMA-Factory",
    "ms_hub_url": "LLaMA-Factory",
    "om_hub_url": "LLaMA-Factory",
    "script_url": "LLaMA-Factory",
    "cloud_file_name": "LLaMA-Factory",
}
"""Keys of an entry that tell whose it is; for most it is the key of the data file."""
ROOTS = ("root", "data_path", "media_root", "images_folder", "image_folder")
"""Keys of an entry's image folder."""
REMOTE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
"""Keys of LLaMA-Factory's entries whose data are elsewhere."""
KNOWN = {
    *(*MARKS, *ROOTS, "name", "dataset_name", "sampling_strategy", "repeat_time", "num_samples"),
    *("formatting", "columns", "tags", "split", "length"),
}
"""Keys of an entry that are read, or say nothing that the data do not."""
LISTED = "data_dict"
"""Name of the dictionary of data sets in Qwen-VL's Python file."""
PICTURES = (
    *("data_augment", "max_dynamic_patch", "min_dynamic_patch", "max_pixels", "min_pixels"),
    *("max_num_images", "conv_style"),
)
"""Keys that tell trainers how to process an entry's images or texts; here the model's own do."""


@dataclass(frozen=True)
class Entry:
    """One data set of a list.

    Attributes:
        name: what its records' source is called.
        path: the data, as the list has it.
        image_folder: its own image folder, as the list has it; None where it has none.
        sampling: how many of its items are taken, and which.
        columns: its own names of columns.
        tags: its messages' own names.
        split: its split.
        content: the entry as it stands in the list.
    """

    name: str
    path: str
    image_folder: str | None
    sampling: Sampling
    columns: dict[str, str]
    tags: dict[str, str]
    split: str
    content: dict[str, object] = field(default_factory=dict)

    @property
    def unread(self) -> list[str]:
        """Keys of the entry that say something that is not read."""
        return [key for key, value in self.content.items() if value and key not in KNOWN]


@dataclass(frozen=True)
class Listing:
    """A list of data sets.

    Attributes:
        kind: whose list it is.
        entries: its data sets, those that were asked for.
    """

    kind: Kind
    entries: list[Entry]


def read_listing(path: Path, wanted: str | None) -> Listing:
    """Read a list of data sets.

    Args:
        path: a YAML or JSON file, or Qwen-VL's `data/__init__.py`, which is read and never run.
        wanted: names of data sets with commas between, each perhaps with `%50` or `#500` behind;
            all by default.

    Raises:
        DataError: it can't be read, or is no such list; or there is no such data set.
    """
    found = list(_entries(path, _parsed(path)))
    if not found:
        raise DataError(f"{path}: names no data sets")
    kinds = {_kind(path, name, entry) for name, entry in found}
    if len(kinds) > 1:
        raise DataError(f"{path}: entries of {' and '.join(sorted(kinds))} in one list")
    kind = kinds.pop()
    if wanted is not None:
        found = list(_chosen(path, found, wanted))
    names: dict[str, int] = {}
    entries = []
    for name, content in found:
        again = names[name] = names.get(name, 0) + 1
        entries.append(_entry(path, kind, name if again == 1 else f"{name}-{again}", content))
    return Listing(kind, entries)


def _parsed(path: Path) -> object:
    try:
        text = path.read_text(encoding="utf-8-sig")
        if path.suffix == ".py":
            return _constants(path, text)
        return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read ({reason(error)})") from error
    except (ValueError, SyntaxError, RecursionError, yaml.YAMLError) as error:
        kind = "Python" if path.suffix == ".py" else "JSON" if path.suffix == ".json" else "YAML"
        raise DataError(f"{path}: not {kind}") from error


def _constants(path: Path, text: str) -> dict[str, object]:
    """The entries of a Python file's `data_dict`, or else all dictionaries that have names.

    Raises:
        DataError: one of them is computed.
    """
    known: dict[str, object] = {}

    def value(node: ast.expr) -> object:
        match node:
            case ast.Name(id=name):
                return known[name]
            case ast.Dict(keys=keys, values=values):
                entries: dict[object, object] = {}
                for key, entry in zip(keys, values, strict=True):
                    if key is not None:
                        entries[value(key)] = value(entry)
                    elif isinstance(other := value(entry), dict):  # **other
                        entries |= other
                    else:
                        raise TypeError
                return entries
            case ast.JoinedStr(values=parts):
                return "".join(str(value(part)) for part in parts)
            case ast.FormattedValue(value=inner):
                return value(inner)
        return ast.literal_eval(node)

    computed: list[str] = []
    for node in ast.parse(text).body:
        match node:
            case (
                ast.Assign(targets=[ast.Name(id=name), *_], value=ast.expr() as said)
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as said)
            ):
                try:
                    known[name] = value(said)
                except (KeyError, ValueError, TypeError):
                    computed += [name] if isinstance(said, ast.Dict) or name == LISTED else []
            case ast.Expr() | ast.Assign() | ast.AugAssign() | ast.For():  # it gets more
                used = [one.id for one in ast.walk(node) if isinstance(one, ast.Name)]
                computed += [LISTED] if LISTED in used else []
    given = known.get(LISTED)
    if LISTED in computed or (computed and not isinstance(given, dict)):
        raise DataError(f"{path}: {computed[0]!r} is computed, and so not read; write it out")
    named = given if isinstance(given, dict) else known
    return {name: entry for name, entry in named.items() if isinstance(entry, dict)}


def _entries(path: Path, content: object) -> Iterator[tuple[str, dict[str, object]]]:
    """Names and entries of a list in any of the forms."""
    if isinstance(content, dict) and isinstance(content.get("datasets"), list):
        content = content["datasets"]
    elif isinstance(content, dict) and isinstance(content.get("dataset"), str | list):
        content = content["dataset"]
    if isinstance(content, str):
        content = content.split()
    if isinstance(content, dict):
        for name, entry in content.items():
            if not isinstance(entry, dict):
                raise DataError(f"{path}: {str(name)[:80]!r} is no data set")
            yield str(name), entry
    elif isinstance(content, list):
        for number, entry in enumerate(content):
            if isinstance(entry, str):
                place, sampling = with_sampling(entry)
                entry = {"dataset_path": place} | ({"#": sampling} if sampling else {})
            if not isinstance(entry, dict):
                raise DataError(f"{path}: entry {number} is no data set")
            named = entry.get("name") or entry.get("dataset_name")
            file = next((entry[key] for key in MARKS if isinstance(entry.get(key), str)), "")
            yield str(named or Path(str(file)).name.partition(".")[0] or number), entry
    else:
        raise DataError(f"{path}: not a list of data sets")


def _kind(path: Path, name: str, entry: Mapping[str, object]) -> Kind:
    for key, kind in MARKS.items():
        if key in entry:
            return kind
    raise DataError(f"{path}: {name!r} names no data; known are {', '.join(MARKS)}")


def _chosen(
    path: Path, found: list[tuple[str, dict[str, object]]], wanted: str
) -> Iterator[tuple[str, dict[str, object]]]:
    """The data sets that are asked for, in that order."""
    known = dict(found)
    for one in filter(None, map(str.strip, wanted.split(","))):
        name, sampling = (one, None) if one in known else with_sampling(one)
        if name not in known:
            near = ", ".join([*known][:10])
            raise DataError(f"datasets: {path} names no {name!r}; known are {near}")
        yield name, {**known[name], "#": sampling} if sampling else known[name]


def _entry(path: Path, kind: Kind, name: str, content: dict[str, object]) -> Entry:
    where = f"{path}: {name!r}"
    sampling = content.pop("#", None) if "#" in content else None
    if remote := next((key for key in REMOTE if content.get(key)), None):
        advice = "download it and name its file_name, or name others by datasets"
        raise DataError(f"{where}: its data are elsewhere ({remote}); {advice}")
    data = content[next(key for key, its in MARKS.items() if its == kind and key in content)]
    if not isinstance(data, str) or not data:
        raise DataError(f"{where}: names no data file")
    columns, tags = _names(where, content, "columns"), _names(where, content, "tags")
    if content.get("ranking") or columns.keys() & set(PREFERENCES):
        raise DataError(f"{where}: data of preferences, which are not read")
    if kind == "ms-swift":  # the other way round: what it is by what it is called
        ours = {"query": "prompt", "instruction": "prompt", "input": "query", "output": "response"}
        columns = {ours.get(what, what): name for name, what in columns.items()}
    for column in columns:
        if column not in COLUMNS:
            raise DataError(
                f"{where}: column {column!r} is unknown; known are {', '.join(COLUMNS)}"
            )
    roots = [content[key] for key in ROOTS if content.get(key)]
    if not all(isinstance(root, str) for root in roots):
        raise DataError(f"{where}: its image folder {roots[0]!r} must be a path")
    split = content.get("split")
    return Entry(
        name,
        data,
        str(roots[0]) if roots else None,
        sampling if isinstance(sampling, Sampling) else _sampling(where, content),
        columns,
        tags,
        split if isinstance(split, str) else "train",
        content,
    )


def _names(where: str, content: dict[str, object], key: str) -> dict[str, str]:
    names = content.get(key) or {}
    if not isinstance(names, dict) or not all(isinstance(v, str) for v in names.values()):
        raise DataError(f"{where}: {key!r} must be names by names")
    return {str(name): value for name, value in names.items()}


def _sampling(where: str, content: dict[str, object]) -> Sampling:
    """What an entry says of how many of its items are taken."""
    for key, kinds in (
        ("sampling_strategy", str),
        ("repeat_time", int | float),
        ("num_samples", int),
    ):
        given = content.get(key)
        if given is None:
            continue
        if not isinstance(given, kinds) or isinstance(given, bool):
            raise DataError(f"{where}: {key!r} {given!r} is not understood")
        try:
            if isinstance(given, str):
                return strategy(given)
            if key == "repeat_time":
                return Sampling(share=given)
            return Sampling("random", rows=int(given))
        except ValueError as error:
            raise DataError(f"{where}: {key!r}: {error}") from error
    return Sampling()
