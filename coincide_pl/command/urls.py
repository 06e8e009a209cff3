"""Addresses such as `s3://…` are refused where only paths of this machine work."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from jsonargparse import Namespace

from coincide_pl.errors import ConfigError

URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")

OPENS_URLS = ("ShardDataset",)
"""Classes whose `path` may be an address."""
SIGNALS = "data.signals"
"""Option whose stores may be at addresses."""


def refuse_urls(options: object) -> None:
    """Refuses an address where only a path of this machine works.

    Args:
        options: a stage's config, or the options of a plain verb.

    Raises:
        ConfigError: naming the option.
    """
    for name, value in local_paths(options):
        if URL.match(value) and name != SIGNALS:
            raise ConfigError(f"{name}: {value} is no local path, and only those can be used here")


def local_paths(
    options: object, name: str = "", within: str | None = ""
) -> Iterator[tuple[str, str]]:
    """Names and values of all texts in options, but for those whose reader takes addresses.

    Loggers, plugins and checkpoints are Lightning's, which opens addresses by fsspec; a class from
    outside of this package may do what it likes.

    Args:
        options: a stage's config, the options of a plain verb, or what is in them.
        name: of these options.
        within: path of the class whose arguments they are.
    """
    if isinstance(options, Namespace | Mapping):
        kind = options.get("class_path")
        if isinstance(kind, str) and not kind.startswith("coincide_pl."):
            return
        for key, value in (
            options.as_dict() if isinstance(options, Namespace) else options
        ).items():
            if key == "path" and (within or "").rpartition(".")[2] in OPENS_URLS:
                continue
            whole = name if key == "init_args" else f"{name}.{key}".lstrip(".")
            if whole not in ("ckpt_path", "trainer.logger", "trainer.plugins", "trainer.strategy"):
                yield from local_paths(value, whole, kind if key == "init_args" else "")
    elif isinstance(options, list):
        for value in options:
            yield from local_paths(value, name)
    elif isinstance(options, str):
        yield name, options
