"""A parser's complaint in one line, with the nearest right options or values."""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from difflib import get_close_matches

import lightning
import torch
from jsonargparse import ArgumentParser
from lightning.pytorch.loggers import Logger
from torch.optim.lr_scheduler import LRScheduler

from coincide_pl.data.readers import Reader
from coincide_pl.evaluation import AnswerMetric
from coincide_pl.selection import Selector

BASES = (
    lightning.LightningModule,
    lightning.LightningDataModule,
    lightning.Callback,
    Reader,
    Selector,
    Logger,
    AnswerMetric,
    torch.optim.Optimizer,
    LRScheduler,
)
"""What is chosen by class name in a config."""

SAYS_NOTHING = ("Does not validate", "Expected a <class 'NoneType'>", "Expected a path but")


def one_line(message: str, parser: ArgumentParser) -> str:
    """Shorten what jsonargparse says to the cause, and add what may have been meant.

    Args:
        message: its whole message.
        parser: whose options are known.
    """
    key = _found(r'Parser key "([^"]+)"', message)
    cause = _cause(message)
    if option := _found(r"Option '([^']+)' is not accepted", cause):
        return f"{option}: no such option{_nearest(option, _options(parser))}"
    if option := _found(r"[Uu]nrecognized arguments: (.*)", cause):
        name = option.split()[0].split("=")[0].lstrip("-")
        return f"{option}: no such option{_nearest(name, _options(parser))}"
    if option := _found(r"does not accept option '([^']+)'", cause):
        return f"{option}: no such option{_nearest(option, _options(parser))}"
    if option := _found(r"[Kk]ey ['\"]([^'\"]+)['\"] (?:is not expected|does not exist)", cause):
        return f"{option}: no such option{_nearest(option, _options(parser))}"
    if value := _found(r"Expected a dot import path string: (.*)", cause):
        return f"{key or 'class_path'}: no class is called {value!r}{_nearest(value, _classes())}"
    if match := re.search(r"Expected an instantiatable class, but (\S+ )?is abstract", cause):
        path = (match[1] or _found(r"Given value: (.*)", message) or "the class").strip()
        return f"{key}: {path} lacks {_lacking(path)}"
    if match := re.search(r"Expected a typing.Literal\[(.*)\]\. Got value: (.*)", cause):
        allowed = re.findall(r"'([^']*)'", match[1])
        near = _nearest(match[2], allowed)
        return f"{key}: {match[2]!r} is not one of {', '.join(allowed)}{near}"
    if match := re.search(r"Expected an? <class '(\w+)'>(?:\. Got value: (.*))?", cause):
        value = match[2] or _found(r"Given value: (.*)", message) or "the value"
        return f"{key}: {value} is not {'an' if match[1][0] in 'aeiou' else 'a'} {match[1]}"
    if match := re.search(r"invalid choice: '([^']*)' \(choose from (.*)\)", cause):
        commands = [
            *re.findall(r"'([^']*)'", match[2]),
            "create-tiny-llava",
            "create-tiny-clip",
            "compare",
        ]
        near = _nearest(match[1], commands)
        return f"{match[1]!r} is not one of {', '.join(commands)}{near}"
    if names := _found(r"arguments are required: (.*)", cause):
        wanted = [f"--{name.rpartition('.')[2]}" for name in names.split(", ")]
        return f"missing: {', '.join(wanted)} (here, or in a --config)"
    return f"{key}: {cause}" if key and key not in cause else cause


def _cause(message: str) -> str:
    """The innermost statement of a nested complaint."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    points = [line[2:] for line in lines if line.startswith("- ")]
    said = [point for point in points if not point.startswith(SAYS_NOTHING)]
    if said:
        return said[0]
    if lines[0].startswith("Problems parsing config"):
        return " ".join(lines)
    plain = [line for line in lines if not line.startswith(("Parser key", "Given value"))]
    if not plain:
        return lines[0].partition(": ")[2] or lines[0]
    return plain[0] if not lines[0].startswith("Parser key") else " ".join(plain)


def _lacking(class_path: str) -> str:
    """The methods that a user's class must still be given, in words."""
    module, _, name = class_path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    methods = sorted(getattr(kind, "__abstractmethods__", ()))
    which = " and ".join([", ".join(methods[:-1])] * (len(methods) > 1) + methods[-1:])
    return f"the method{'s' * (len(methods) > 1)} {which}" if methods else "some of its methods"


def _found(pattern: str, text: str) -> str | None:
    match = re.search(pattern, text)
    return match[1].strip() if match else None


def _nearest(name: str, known: Iterable[str]) -> str:
    full = sorted(set(known))
    if name in full:
        return " here: name the class that has it, in a config or in an option before this one"
    last = name.rpartition(".")[2]
    near = get_close_matches(name, full, 3, 0.75) or get_close_matches(last, full, 3, 0.6)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def _options(parser: ArgumentParser) -> Iterator[str]:
    """Names of all options, and of the arguments of all classes that can be named."""
    for action in parser._actions:
        yield action.dest
        yield action.dest.rpartition(".")[2]
        for nested in getattr(action, "_name_parser_map", {}).values():
            yield from _options(nested)
    for known in _subclasses(BASES):
        if known.__module__.startswith(("coincide_pl", "torch.optim", "lightning.pytorch.loggers")):
            yield from (n for n in inspect.signature(known).parameters)


def _classes() -> Iterator[str]:
    return (known.__name__ for known in _subclasses(BASES) if not known.__name__.startswith("_"))


def _subclasses(bases: Iterable[type]) -> Iterator[type]:
    for base in bases:
        yield base
        yield from _subclasses(base.__subclasses__())
