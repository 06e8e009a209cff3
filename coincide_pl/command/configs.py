"""The blocks of `configs/`: found by name, put before all options, listed and printed."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from itertools import takewhile
from pathlib import Path

from coincide_pl.errors import ConfigError

FLAGS = ("--config", "-c")


def configs(block: str | None = None) -> None:
    """Lists the building blocks of configs, or prints one.

    Each can be given to `--config` by the name it has in the list, from any folder.

    Args:
        block: name of the one to print, such as `selectors/coincide`.

    Raises:
        ConfigError: there is no such block.
    """
    if block is not None:
        print(Path(found(block)).read_text(), end="")
        return
    names = blocks()
    width = max(map(len, names))
    for name in names:
        print(f"{name:{width}}  {about(name)}", flush=True)


def shipped() -> Path:
    """The folder of the blocks: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).parents[1]
    inside = package / "configs"
    return inside if inside.is_dir() else package.parent / "configs"


def blocks() -> list[str]:
    """Names of the blocks that come with the package, such as `selectors/coincide`."""
    folder = shipped()
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.glob("*/*.yaml"))


def about(name: str) -> str:
    """The first sentence of a block's comment."""
    lines = (shipped() / f"{name}.yaml").read_text().splitlines()
    comment = " ".join(line.strip("# ") for line in takewhile(lambda one: one[:1] == "#", lines))
    return comment.partition(". ")[0].rstrip(".") + "."


def found(name: str) -> str:
    """The path of a config that is named as `--config` is given it.

    A file is looked for in the current folder, in `configs/` there, and then among the package's
    own blocks; each time as it is called, and with `.yaml` behind it.

    Args:
        name: a path, a block such as `selectors/coincide`, or the YAML itself.

    Returns:
        The path; YAML as it is.

    Raises:
        ConfigError: there is no such file.
    """
    if "\n" in name or ": " in name or name.startswith("{"):
        return name
    block = name.removeprefix("configs/")
    for place in (os.path.expanduser(name), os.path.join("configs", block), shipped() / block):
        for path in (str(place), f"{place}.yaml"):
            if os.path.isfile(path):
                return path
    near = get_close_matches(block.removesuffix(".yaml"), blocks(), 3, 0.6)
    advice = f"did you mean {' or '.join(near)}?" if near else "`coincide configs` lists the blocks"
    raise ConfigError(f"{name}: no such config, here or in the package; {advice}")


def configs_first(words: Sequence[str]) -> list[str]:
    """A command line with its configs before its options, so that an option always wins.

    Args:
        words: what stands behind `coincide`.

    Returns:
        What stands before the first option, such as the verb; the configs in their order, each by
        the path where it was found; and all other words in their order.
    """
    start = next((i for i, word in enumerate(words) if word.startswith("-")), len(words))
    given, others = [], []
    rest = iter(words[start:])
    for word in rest:
        flag, _, name = word.partition("=")
        name = name or (next(rest, "") if word in FLAGS else "")
        if flag in FLAGS and name:
            given.append(f"--config={found(name)}")
        else:
            others.append(word)
    return [*words[:start], *given, *others]


def options(config: Mapping[str, object], prefix: str = "") -> dict[str, object]:
    """A config as options of the command line, for loggers that can filter runs by them.

    Args:
        config: the config, or a part of it.
        prefix: name of the part, with a dot behind it.

    Returns:
        Values by dotted names; a class stands under the name of the option that takes it.
    """
    found: dict[str, object] = {}
    for name, value in config.items():
        if name == "class_path":
            found[prefix.rstrip(".")] = value
        elif isinstance(value, Mapping):
            found |= options(value, prefix if name == "init_args" else f"{prefix}{name}.")
        else:
            found[f"{prefix}{name}"] = value
    return found
