"""jsonargparse's parser, whose complaints are one line each."""

from __future__ import annotations

import ast
import json
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, NoReturn

from jsonargparse import ArgumentParser, Namespace

from coincide_pl.command.messages import one_line
from coincide_pl.errors import CoincideError, ConfigError, printable


class Parser(ArgumentParser):
    """Says what is wrong in one line, with the nearest right option or value.

    Attributes:
        words: the command line; a parser of a class inside a class sees a part of it only, and
            names options by its help.
    """

    words: ClassVar[Sequence[str]] = ()

    def parse_args(self, args: Any = None, *others: Any, **options: Any) -> Any:
        """Parses words; `None`, as W&B's agent and jsonargparse itself spell it, is `null`.

        `~/` is the home folder wherever it begins a value, on the command line and in configs: a
        shell does not see it in `--option=~/file`.
        """
        words = sys.argv[1:] if args is None else args
        words = [without_none(at_home(word)) for word in words]
        return with_home(super().parse_args(words, **options))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        """Prints the line and exits with status 2."""
        if isinstance(ex, CoincideError):
            raise ex
        refuse(one_line(message, self, self.words))


def without_none(word: str) -> str:
    """A word whose value is written as YAML has it, where it was written as Python has it.

    W&B's agent writes a sweep's null as None, alone or in a list or a dict.
    """
    option, _, value = word.partition("=")
    if value == "None":
        return f"{option}=null"
    if option.startswith("-") and value[:1] in ("[", "{") and "None" in value:
        with suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            return f"{option}={json.dumps(ast.literal_eval(value))}"
    return word


def at_home(word: str) -> str:
    """A word, or the value of an option, with the home folder for a `~` that begins it."""
    option, equals, value = word.partition("=") if word.startswith("-") else ("", "", word)
    return option + equals + os.path.expanduser(value) if value[:2] in ("~", "~/") else word


def with_home(value: Any) -> Any:
    """What was parsed, with the home folder for each `~` that begins a text."""
    if isinstance(value, str):
        return at_home(value)
    if isinstance(value, list):
        return [with_home(one) for one in value]
    if isinstance(value, dict | Namespace):
        for key in list(vars(value) if isinstance(value, Namespace) else value):
            value[key] = with_home(value[key])
    return value


def refuse(line: str) -> NoReturn:
    """Ends the command over a mistake in its words: status 2, and the line."""
    sys.stderr.write(f"error: {printable(line)}\n")
    sys.exit(2)


def check_text(path: str) -> None:
    """Refuses a config that is no text, which the parser would not take for a mistake.

    Raises:
        ConfigError: naming it.
    """
    with suppress(OSError, ValueError):  # the parser says that a file is not there
        content = Path(path).read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text ({error.reason})") from error
