"""jsonargparse's complaints, each in one line with the nearest right options or values.

It gives prose, not causes. Every pattern over its prose is in this file, and
`tests/command/test_messages.py` brings each complaint about, so that it fails when the prose does
not fit any more.
"""

from __future__ import annotations

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser

from coincide_pl.command import renamed
from coincide_pl.command.verbs import VERBS

SAYS_NOTHING = ("Does not validate", "Expected a <class 'NoneType'>", "Expected a path but")
"""Beginnings of statements that only say that something else failed, too."""


@dataclass(frozen=True)
class Complaint:
    """What jsonargparse said.

    Attributes:
        key: the option, as far as it is named.
        cause: the innermost statement.
        given: the value that was refused, as text; empty where it is not said.
        parser: whose options are known.
        words: of the command line.
    """

    key: str
    cause: str
    given: str
    parser: ArgumentParser
    words: Sequence[str]


def one_line(message: str, parser: ArgumentParser, words: Sequence[str] = ()) -> str:
    """Shorten what jsonargparse says to the cause, and add what may have been meant.

    Args:
        message: its whole message.
        parser: whose options are known.
        words: of the command line, for the whole names of options.
    """
    message = not_allowed(message)
    complaint = Complaint(
        whole_name(_found(r'Parser key "([^"]+)"', message), words),
        _cause(message),
        _found(r"Given value: (.*)", message),
        parser,
        words,
    )
    for pattern, say in RULES.items():
        if match := re.search(pattern, complaint.cause):
            return say(complaint, *match.groups(""))
    key, cause = complaint.key, complaint.cause
    return f"{key}: {cause}" if key and key not in cause else cause


def no_option(complaint: Complaint, words: str) -> str:
    """An option that there is not, or not yet."""
    name = whole_name(words.split()[0].split("=")[0].lstrip("-"), complaint.words)
    if line := renamed.option(name):
        return line
    if name.endswith(".help"):
        return f"{words}: name the class that it is an option of first, such as {_class_of(name)}"
    given = words if words.startswith("-") else name
    return f"{given}: no such option{_nearest(name, _options(complaint.parser))}"


def no_class(complaint: Complaint, name: str) -> str:
    """A class that there is not."""
    return (
        f"{complaint.key or 'class_path'}: no class is called {name!r}{_nearest(name, _classes())}"
    )


def no_import(complaint: Complaint, name: str, cause: str) -> str:
    """A class that can't be imported, or that lacks something."""
    key = complaint.key or option_with(name, complaint.words)
    return f"{key}: {name}: {cause or 'can not be used'}"


def not_allowed(text: str) -> str:
    """The same text where it says that a class may not be imported, and what to do about it."""
    match = re.search(r"Importing '([^']+)' is not allowed.*", text)
    if not match:
        return text
    name = match[1]
    if name.partition(".")[0] in sys.stdlib_module_names:
        return text.replace(match[0], f"{name} is of Python's own library, and no class for this")
    return text.replace(
        match[0],
        f"{name} is of a module that is imported only where you name it: as an option's value, or "
        "in a config that you name (for a run's own: --run_config)",
    )


def abstract(complaint: Complaint, class_path: str) -> str:
    """An argument of a class that is named later or not at all, or a class that is unfinished."""
    if complaint.given.startswith("NestedArg"):
        known = ", ".join(sorted(_below(class_path.strip())))
        return f"{complaint.key}: name the class before its arguments, one of {known}"
    class_path = class_path.strip() or complaint.given
    module, _, name = class_path.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)
    methods = sorted(getattr(kind, "__abstractmethods__", ()))
    which = " and ".join([", ".join(methods[:-1])] * (len(methods) > 1) + methods[-1:])
    lacking = f"the method{'s' * (len(methods) > 1)} {which}" if methods else "some of its methods"
    return f"{complaint.key}: {class_path} lacks {lacking}"


def unnamed(complaint: Complaint, base: str) -> str:
    """Arguments of a class in a config that does not say of which."""
    known = ", ".join(sorted(_below(base)))
    return f"{complaint.key}: name the class of its arguments by class_path, one of {known}"


def not_among(complaint: Complaint, literals: str, given: str) -> str:
    """A value that is none of those allowed."""
    allowed, value = re.findall(r"'([^']*)'", literals), given or complaint.given
    if line := renamed.value(complaint.key, value):
        return line
    return (
        f"{complaint.key}: {value!r} is not one of {', '.join(allowed)}{_nearest(value, allowed)}"
    )


def not_a(complaint: Complaint, kind: str, given: str) -> str:
    """A value of another type."""
    value = given or complaint.given or "the value"
    return f"{complaint.key}: {value} is not {'an' if kind[0] in 'aeiou' else 'a'} {kind}"


def missing(complaint: Complaint, names: str) -> str:
    """Options that must be given."""
    operands = {name for verb in VERBS for name, _ in verb.operands}
    wanted = [
        name if name in operands else f"--{argument_of(name, complaint.words)}"
        for name in names.split(", ")
    ]
    return f"missing: {', '.join(wanted)} (here, or in a --config)"


def no_config(complaint: Complaint, given: str) -> str:
    """A value where a group of options is."""
    return f"{complaint.key}: {given} is neither a group of options nor a config file"


RULES: dict[str, Callable[..., str]] = {
    r"Option '([^']+)' is not accepted": no_option,
    r"[Uu]nrecognized arguments: (.*)": no_option,
    r"does not accept option '([^']+)'": no_option,
    r"Expected a dot import path string: (.*)": no_class,
    r"Problem with given class_path '([^']+)':? *(.*)": no_import,
    r"Expected an instantiatable class, but (\S+ )?is abstract": abstract,
    r"Not a valid subclass of (\w+)": unnamed,
    r"Expected a typing.Literal\[(.*)\](?:\. Got value: (.*))?": not_among,
    r"Expected an? <class '(\w+)'>(?:\. Got value: (.*))?": not_a,
    r"arguments are required: (.*)": missing,
    r"Unable to load config \"(.*)\"": no_config,
}
"""Pattern of a cause, and what makes a line of it."""


def whole_name(option: str, words: Sequence[str]) -> str:
    """An option's name from its beginning, where only one that was set ends as it does.

    Args:
        option: the end of its name, such as `fraction`.
        words: of the command line.

    Returns:
        Such as `data.fraction`; the option as it was given where that can't be told.
    """
    names = {name for name in _names_set(words) if f".{name}".endswith(f".{option}")}
    return names.pop() if len(names) == 1 else option


def argument_of(name: str, words: Sequence[str]) -> str:
    """The whole name of an argument that a class can't do without, by the classes that are named.

    Args:
        name: of the argument, such as `targets`.
        words: of the command line.

    Returns:
        Such as `data.selector.targets`; the name alone where no class, or more than one, has it.
    """
    known = {kind.__name__: kind for kind in _subclasses(_bases())}
    found = set()
    for option, class_path in _classes_set(words):
        kind = known.get(class_path.rpartition(".")[2])
        argument = kind and inspect.signature(kind).parameters.get(name)
        if argument and argument.default is inspect.Parameter.empty:
            found.add(f"{option}.{name}")
    return found.pop() if len(found) == 1 else name


def option_with(class_path: str, words: Sequence[str]) -> str:
    """The option of the command line that names a class; `class_path` where there is none."""
    last = class_path.rpartition(".")[2]
    for word in words:
        option, equals, value = word.partition("=")
        if equals and value.rpartition(".")[2] == last:
            return option.lstrip("-")
    return "class_path"


def _names_set(words: Sequence[str]) -> Iterator[str]:
    """Names of all options that a command line and its configs set."""
    for word in words:
        if word.startswith("--"):
            parts = word[2:].partition("=")[0].rstrip("+").split(".")
            yield from (".".join(parts[: end + 1]) for end in range(len(parts)))
    for path in config_files(words):
        with suppress(OSError, ValueError, yaml.YAMLError):
            yield from _names_in(yaml.safe_load(Path(path).read_text()), "")


def _names_in(content: object, before: str) -> Iterator[str]:
    if isinstance(content, dict):
        for key, value in content.items():
            name = before if key == "init_args" else f"{before}.{key}".lstrip(".")
            yield name
            yield from _names_in(value, name)
    elif isinstance(content, list):
        for value in content:
            yield from _names_in(value, before)


def _classes_set(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options and the classes that a command line and its configs name for them, as they do."""
    for word in words:
        option, equals, value = word.partition("=")
        if option.startswith("--") and equals:
            yield option[2:], value
    for path in config_files(words):
        with suppress(OSError, ValueError, yaml.YAMLError):
            yield from _classes_in(yaml.safe_load(Path(path).read_text()), "")


def _classes_in(content: object, before: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict):
        if isinstance(class_path := content.get("class_path"), str):
            yield before, class_path
        for key, value in content.items():
            name = before if key == "init_args" else f"{before}.{key}".lstrip(".")
            yield from _classes_in(value, name)


def config_files(words: Sequence[str]) -> list[str]:
    """Paths of the configs that a command line names."""
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if before in ("-c", "--config"):
            found.append(word)
        elif word.startswith("--config="):
            found.append(word.removeprefix("--config="))
    return found


def _cause(message: str) -> str:
    """The first statement of a nested complaint that says something, in one line."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    points: list[list[str]] = []
    for line in lines:
        if line.startswith("- "):
            points.append([line[2:]])
        elif points and not line.startswith(("Given value", "Subtypes:", "Errors:")):
            points[-1].append(line)
    for point in points:
        if not point[0].startswith(SAYS_NOTHING):
            return " ".join(point)
    if lines[0].startswith("Problems parsing config"):
        return " ".join(lines)
    plain = [line for line in lines if not line.startswith(("Parser key", "Given value"))]
    if not plain:
        return lines[0].partition(": ")[2] or lines[0]
    return plain[0] if not lines[0].startswith("Parser key") else " ".join(plain)


def _found(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1].strip() if match else ""


def _nearest(name: str, known: Iterable[str]) -> str:
    """What may have been meant, as the end of a line."""
    full, last = sorted(set(known)), name.rpartition(".")[2]
    if name in full or last in full:
        return " here: name the class that has it, in a config or in an option before this one"
    for cutoff in (0.9, 0.75, 0.6):  # what is much nearer than the rest stands alone
        if near := get_close_matches(last, full, 3, cutoff):
            return f"; did you mean {' or '.join(near)}?"
    return ""


def _options(parser: ArgumentParser) -> Iterator[str]:
    """Names of all options, and of the arguments of all classes that can be named."""
    for name in parser.get_defaults().keys():  # noqa: SIM118  (no mapping)
        yield name
        yield name.rpartition(".")[2]
    for known in _subclasses(_bases()):
        if known.__module__.startswith(("coincide_pl", "torch.optim", "lightning.pytorch.loggers")):
            yield from (n for n in inspect.signature(known).parameters)


def _classes() -> Iterator[str]:
    return (known.__name__ for known in _subclasses(_bases()) if known.__name__[0] != "_")


def _below(path: str) -> Iterator[str]:
    """Names of the package's classes below one that is given by its import path."""
    name = path.rpartition(".")[2]
    for base in _bases():
        if base.__name__ == name:
            for known in _subclasses([base]):
                if known is not base and known.__module__.startswith("coincide_pl"):
                    yield known.__name__


def _class_of(option: str) -> str:
    """An example of an option that names the class which another option belongs to."""
    first = option.split(".")[0]
    return f"--{first}={ {'data': 'InstructionData', 'model': 'TargetModule'}.get(first, 'NAME') }"


def _bases() -> tuple[type, ...]:
    """What is chosen by class name in a config; imported only where something is wrong."""
    import lightning
    import torch
    from lightning.pytorch.loggers import Logger
    from torch.optim.lr_scheduler import LRScheduler

    from coincide_pl.data.readers import Reader
    from coincide_pl.evaluation import AnswerMetric
    from coincide_pl.selection import Selector

    return (
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


def _subclasses(bases: Iterable[type]) -> Iterator[type]:
    for base in bases:
        yield base
        yield from _subclasses(base.__subclasses__())
