"""Which shards belong to a data set: those in its folder, or those that Energon's files name."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from coincide_pl.data.shards.places import file_system, is_url
from coincide_pl.errors import DataError

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""The safe loader, in C where there is one: exclusions may be many."""
SUFFIXES = (".tar", ".parquet")
"""How the names of shards end."""


def shards_in(folder: Path) -> list[Path]:
    """The shards in a folder: its tar files, or else its Parquet files."""
    for suffix in SUFFIXES:
        if found := sorted(folder.rglob(f"*{suffix}")):
            return found
    return []


def energon_split(base: str) -> str | None:
    """Energon's split.yaml, or its split.json, where there is one."""
    for name in ("split.yaml", "split.json"):
        place = f"{base}/.nv-meta/{name}"
        try:
            if not is_url(place):
                return Path(place).read_text()
            system, path = file_system(place)
            if system.exists(path):
                return str(system.cat_file(path).decode())
        except (OSError, UnicodeDecodeError):
            continue
    return None


BRACES = re.compile(r"(?<!\\)\{(?:(\d+)\.\.(\d+)|([^{},\\]*(?:,[^{},\\]*)+))\}")
"""A range of numbers, or words with commas between, of which each is meant."""


def expanded(pattern: str) -> list[str]:
    """The names that a pattern such as `shard_{000..009}.tar` or `{a,b}.tar` stands for.

    A backslash before a brace, a comma or another backslash takes its meaning away.
    """
    found = BRACES.search(pattern)
    if not found:
        return [re.sub(r"\\(.)", r"\1", pattern)]
    words = (found[3] or "").split(",")
    if found[3] is None:
        ends = found.groups()[:2]
        width = max(map(len, ends)) if any(end[0] == "0" for end in ends if len(end) > 1) else 0
        words = [f"{n:0{width}}" for n in range(int(ends[0]), int(ends[1]) + 1)]
    names = [f"{pattern[: found.start()]}{word}{pattern[found.end() :]}" for word in words]
    return [name for one in names for name in expanded(one)]


def unexpanded(name: str) -> str:
    """A pattern that stands for one name, whatever is in it."""
    return re.sub(r"[\\{},]", r"\\\g<0>", name)


def shards_of(where: str, text: str, split: str, names: list[str]) -> tuple[list[str], set[str]]:
    """The shards of a split, and samples that are excluded, as Energon's split.yaml tells them."""
    try:
        content = yaml.load(text, LOADER)
        excluded = {name for one in content.get("exclude") or [] for name in expanded(one)}
        parts = [name for part in content["split_parts"][split] for name in expanded(part)]
        chosen = [name for name in parts if name not in excluded]
    except (yaml.YAMLError, AttributeError, KeyError, TypeError) as error:
        raise DataError(f"{where}/.nv-meta/split.yaml: tells no split {split!r}") from error
    if missing := sorted(set(chosen) - set(names)):
        raise DataError(f"{where}: {missing[0]} of its split.yaml is not there")
    return chosen, excluded
