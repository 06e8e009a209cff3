"""The list of a mix, written for what was chosen of it, as its own tool reads it."""

from __future__ import annotations

import json
from pathlib import Path

import yaml

from coincide_pl.data.readers.listings import ROOTS, Entry
from coincide_pl.files import write_text


def write_listing(
    folder: Path, kind: str, written: list[tuple[Entry, dict[str, object]]], as_yaml: bool
) -> None:
    """Write the list of data sets into the folder where they are.

    Args:
        folder: of the data sets' files.
        kind: whose list it is.
        written: the entries, as they were and as they are.
        as_yaml: whether it becomes YAML, and not JSON.
    """
    name = "dataset_info" if kind == "LLaMA-Factory" else "mix"
    content = listing_of(kind, written)
    if as_yaml:
        text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
        write_text(folder / f"{name}.yaml", [text])
    else:
        text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
        write_text(folder / f"{name}.json", [text])


def entry_of(kind: str, entry: Entry, file: Path, root: str | None) -> dict[str, object]:
    """An entry of a list for what was chosen of a data set: taken whole, and once.

    Args:
        kind: whose list it is.
        entry: as it was in the list.
        file: what was written.
        root: the image folder, where the list names one.
    """
    content = dict(entry.content)
    for key in ("sampling_strategy", "repeat_time", "num_samples", "length"):
        content.pop(key, None)
    for key in ROOTS:
        if key in content and root is not None:
            content[key] = root
    place = str(file.resolve())
    match kind:
        case "LLaVA-OneVision":
            return {**content, "json_path": place, "sampling_strategy": "all"}
        case "InternVL":
            return {**content, "annotation": place, "repeat_time": 1}
        case "Qwen-VL":
            return {**content, "annotation_path": place}
        case "LLaMA-Factory":
            return {**content, "file_name": file.name}
    return {**content, "dataset_path": place}


def listing_of(kind: str, written: list[tuple[Entry, dict[str, object]]]) -> object:
    """A list of data sets as its own tool reads it.

    Args:
        kind: whose list it is.
        written: the entries, as they were and as they are.
    """
    if kind == "LLaVA-OneVision":
        return {"datasets": [content for _, content in written]}
    if kind == "ms-swift":
        if all(content.keys() == {"dataset_path"} for _, content in written):
            return {"dataset": [content["dataset_path"] for _, content in written]}
        return [content for _, content in written]
    return {entry.name: content for entry, content in written}
