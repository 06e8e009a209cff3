"""Which modules a class path may have imported: the libraries' own, and those that the user names.

A config that comes with a run, which `report` or `export` reads, may have been written by anybody.
A config that the user gives by name, and the command line, may name the user's own modules.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import yaml
from jsonargparse import set_parsing_settings

LIBRARIES = ("coincide_pl", "lightning", "torch", "torchmetrics", "transformers")
"""Top-level packages whose classes any config may name."""
HARMLESS = ("datetime", "pathlib")
"""Modules of Python whose classes some options take."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def allow_named(words: Sequence[str], option: str = "") -> None:
    """Lets class paths import from the libraries and from what options name, and nothing else.

    Where the user has named modules, they are found in the working directory, too.

    Args:
        words: of the command line.
        option: the one whose value counts; default: all options' values.
    """
    named: set[str] = set()
    for before, word in zip(["", *words], words, strict=False):
        name, equals, value = (word if word.startswith("--") else f"{before}={word}").partition("=")
        if (
            equals
            and name.startswith("-")
            and name.removeprefix("--") in (option or name[2:], name)
        ):
            named |= {*modules_in(value)}
    named -= sys.stdlib_module_names  # a class path there could only run something
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=[*LIBRARIES, *HARMLESS, *named]
    )
    if named - {*LIBRARIES} and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def modules_in(value: object, folder: Path = Path()) -> Iterator[str]:
    """Top-level modules that a value may name, and the configs that it names.

    Args:
        value: a word, or what a config holds.
        folder: that paths are relative to.
    """
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        for one in value:
            yield from modules_in(one, folder)
    elif isinstance(value, str):
        if DOTTED.fullmatch(value):
            yield value.partition(".")[0]
        path = folder / value
        with suppress(OSError, ValueError, yaml.YAMLError, RecursionError):
            if path.suffix in (".yaml", ".yml", ".json") and path.is_file():
                yield from modules_in(_config(path), path.parent)
            elif value[:1] in "[{":
                yield from modules_in(yaml.safe_load(value), folder)


def _config(path: Path) -> object:
    """What a config holds, or a file of records; nothing of a file that is too large for one."""
    if path.stat().st_size >= 1 << 20:
        return None
    text = path.read_text()
    if path.suffix == ".json":
        with suppress(ValueError):  # what is no JSON may be YAML, which takes far longer to read
            return json.loads(text)
    return yaml.safe_load(text)
