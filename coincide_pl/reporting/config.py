"""Configs that the stages of a run left in its directory, read as plain mappings."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeAlias

import yaml

from coincide_pl.data.shards.places import is_url
from coincide_pl.errors import CoincideError
from coincide_pl.files import reading

Config: TypeAlias = dict[str, Any]
"""A config, or a part of one, as YAML or JSON hold it."""
LARGEST = 100_000
"""Number of values in a config at most, those counted again that stand in several places."""


def read_config(path: Path) -> Config:
    """Read the config that a stage left in its run's directory.

    Raises:
        CoincideError: the config is missing or damaged.
    """
    if not path.is_file():
        raise CoincideError(f"{path}: not there; a run of `coincide fit` leaves it")
    with reading(path, "run `coincide fit` again"):
        return parse_config(path.read_text())


def parse_config(text: str) -> Config:
    """Read a config as a stage wrote it.

    Raises:
        ValueError: the text is no config.
    """
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError("not YAML") from error
    if not isinstance(config, dict):
        raise ValueError("not a mapping")
    todo: list[Any] = [config]
    for _ in range(LARGEST):
        if not todo:
            return config
        value = todo.pop()
        if isinstance(value, dict | list):
            todo += value.values() if isinstance(value, dict) else value
    raise ValueError("more values than a config has; aliases can make a few lines endless")


def option(config: Config, name: str) -> Any:
    """An option of a config; None where it is not set.

    Args:
        config: config of a stage.
        name: dotted name of the option; classes' arguments count as if they were options.
    """
    value: Any = config
    for key in name.split("."):
        while isinstance(value, dict) and key not in value and "init_args" in value:
            value = value["init_args"]
        value = value.get(key) if isinstance(value, dict) else None
    return value


def leaves(config: Config, name: str) -> dict[str, Any]:
    """Options of a config below a dotted name, by their dotted names."""
    return dict(_leaves(name, option(config, name)))


def stores(config: Config, folder: Path) -> list[Path]:
    """Directories of the signals that a config names, but for those at addresses.

    Args:
        config: config of a stage.
        folder: folder that the stage was started in.

    Raises:
        ValueError: they are not paths.
    """
    named = option(config, "data.signals") or []
    named = [named] if isinstance(named, str) else named
    if not (isinstance(named, list) and all(isinstance(one, str) for one in named)):
        raise ValueError("data.signals is neither a path nor a list of paths")
    return [folder / Path(one).expanduser() for one in named if not is_url(one)]


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    found = []
    for key, inner in value.items():
        found += _leaves(name if key == "init_args" else f"{name}.{key}", inner)
    return found
