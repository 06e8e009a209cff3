"""The plain verbs: a function's parameters are the options, as the stages have theirs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from importlib import import_module

from coincide_pl.command.parser import Parser
from coincide_pl.command.quiet import quiet_libraries
from coincide_pl.command.urls import refuse_urls
from coincide_pl.command.verbs import Verb


def run_function(verb: Verb, words: Sequence[str]) -> None:
    """Imports a verb's function and calls it with what the words say.

    Args:
        verb: one that names a function.
        words: of the command line, after the verb.
    """
    function = function_of(verb)
    quiet_libraries()
    about = (function.__doc__ or "").partition("Args:")[0]  # each option has a help of its own
    parser = Parser(prog=f"coincide {verb.name}", description=about)
    parser.add_argument("--config", action="config", help="file with options, in YAML")
    for name, meaning in verb.operands:
        default = inspect.signature(function).parameters[name].default
        optional = "?" if default is not inspect.Parameter.empty else None
        parser.add_argument(name, nargs="+" if name.endswith("s") else optional, help=meaning)
    skip: set[str | int] = {name for name, _ in verb.operands}
    parser.add_function_arguments(function, fail_untyped=False, skip=skip)
    options = parser.instantiate_classes(parser.parse_args(list(words)))
    options.pop("config")
    refuse_urls(options)
    function(**options)


def function_of(verb: Verb) -> Callable[..., None]:
    """The function that the table names for a verb."""
    module, _, name = verb.function.partition(":")
    function: Callable[..., None] = getattr(import_module(module), name)
    return function
