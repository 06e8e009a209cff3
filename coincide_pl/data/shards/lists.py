"""Which shards belong to a data set: those in its folder, or those that Energon's files name."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from coincide_pl.data.shards.places import file_system, is_url
from coincide_pl.errors import DataError

SUFFIXES = (".tar", ".parquet")
"""How the names of shards end."""


def shards_in(folder: Path) -> list[Path]:
    """The shards in a folder: its tar files, or else its Parquet files."""
    for suffix in SUFFIXES:
        if found := sorted(folder.rglob(f"*{suffix}")):
            return found
    return []


def energon_split(base: str) -> str | None:
    """Energon's split.yaml, where there is one."""
    place = f"{base}/.nv-meta/split.yaml"
    try:
        if is_url(place):
            system, path = file_system(place)
            return system.cat_file(path).decode() if system.exists(path) else None
        return Path(place).read_text()
    except (OSError, UnicodeDecodeError):
        return None


def _expanded(pattern: str) -> list[str]:
    """The names that a pattern such as `shard_{000..009}.tar` stands for."""
    found = re.search(r"\{(\d+)\.\.(\d+)\}", pattern)
    if not found:
        return [pattern]
    numbers = range(int(found[1]), int(found[2]) + 1)
    width = len(found[1])
    names = [f"{pattern[: found.start()]}{n:0{width}}{pattern[found.end() :]}" for n in numbers]
    return [name for one in names for name in _expanded(one)]


def shards_of(where: str, text: str, split: str, names: list[str]) -> tuple[list[str], set[str]]:
    """The shards of a split, and samples that are excluded, as Energon's split.yaml tells them."""
    try:
        content = yaml.safe_load(text)
        excluded = set(content.get("exclude") or [])
        parts = [name for part in content["split_parts"][split] for name in _expanded(part)]
        chosen = [name for name in parts if name not in excluded]
    except (yaml.YAMLError, KeyError, TypeError) as error:
        raise DataError(f"{where}/.nv-meta/split.yaml: tells no split {split!r}") from error
    if missing := sorted(set(chosen) - set(names)):
        raise DataError(f"{where}: {missing[0]} of its split.yaml is not there")
    return chosen, excluded
