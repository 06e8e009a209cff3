"""The command `coincide`, also called `lightning`: how it begins and how it ends."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from typing import NoReturn

import coincide_pl
from coincide_pl import ranks
from coincide_pl.command import renamed
from coincide_pl.command.configs import configs_first
from coincide_pl.command.functions import run_function
from coincide_pl.command.imports import allow_named
from coincide_pl.command.messages import config_files, not_allowed
from coincide_pl.command.parser import Parser, check_text, refuse
from coincide_pl.command.quiet import quiet
from coincide_pl.command.verbs import BY_NAME, overview, suggestion
from coincide_pl.command.watch import watch
from coincide_pl.errors import CoincideError, printable
from coincide_pl.interruption import Interrupted, interruption

PATIENCE = 10.0
"""Seconds that a process waits with an error of its own: the first one may be gone, and it too."""


def main(args: list[str] | None = None) -> None:
    """Runs the command line, and ends with a line and a status where the user can mend it.

    Args:
        args: the words after `coincide`; default: the process's own.
    """
    words = sys.argv[1:] if args is None else args
    quiet()
    with interruption.listening():
        try:
            with interruption.until_the_end():
                run(words)
        except Interrupted:
            watch.asked()
            if ranks.speaks():
                sys.stderr.write(f"interrupted: {interruption.advice}\n")
            sys.exit(128 + (interruption.asked or signal.SIGINT))
        except BrokenPipeError:  # who reads the output, such as `head`, has read enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(128 + signal.SIGPIPE)
        except CoincideError as error:
            end_with(error)
        except Exception as error:
            if (other := watch.error()) is not None:
                end_with(other)
            if not ranks.speaks():
                time.sleep(PATIENCE)
            watch.failed(f"{watch.name} ended with {type(error).__name__}; its output says more")
            raise
        finally:
            leave_group()


def end_with(error: CoincideError) -> NoReturn:
    """Ends this process with an error's line, unless another process of the run says it."""
    line = line_of(error)
    said_by_first = watch.failed(line, error.status)
    if ranks.speaks() or not (error.shared or said_by_first):
        sys.stderr.write(f"error: {printable(line)}\n")
    sys.exit(error.status)


def run(words: Sequence[str]) -> None:
    """Runs a verb, or says what verbs there are."""
    if "_ARGCOMPLETE" in os.environ:  # a shell asks; it has argcomplete
        from coincide_pl.command.completion import verb_of_line

        words = [verb_of_line()]
    match words:
        case []:
            refuse(f"which verb? {', '.join(BY_NAME)}; coincide --help says what each does")
        case ["-h" | "--help", *_]:
            print(overview())
            return
        case ["--version", *_]:
            print(versions())
            return
    word, *others = words
    if word.startswith("-"):
        refuse(f"{word}: put the verb first, as in `coincide fit {word.partition('=')[0]} …`")
    if word not in BY_NAME:
        refuse(renamed.verb(word) or suggestion(word))
    others = configs_first(others)
    for path in config_files(others):
        check_text(path)
    Parser.words = others
    verb = BY_NAME[word]
    allow_named(others, "run_config" if verb.reads_runs else "")
    if verb.function:
        run_function(verb, others)
    else:
        from coincide_pl.command.cli import run_stage  # takes seconds, for it imports Lightning

        run_stage(verb, others)


def versions() -> str:
    """The package's version, and those of what results may depend on most."""
    others = (f"{name} {version(name)}" for name in ("torch", "lightning", "transformers"))
    return f"coincide_pl {coincide_pl.__version__} ({', '.join(others)})"


def line_of(error: CoincideError) -> str:
    """An error's line, without the traceback that a reader's process puts in front of it."""
    text = not_allowed(str(error).strip())
    if text.startswith("Caught "):
        return re.sub(rf"^(\w+\.)*{type(error).__name__}: ", "", text.splitlines()[-1])
    return text


def leave_group() -> None:
    """Leaves the group of the run's processes: its threads must not outlive the interpreter."""
    if (torch := sys.modules.get("torch")) is not None:
        distributed = torch.distributed
        if distributed.is_available() and distributed.is_initialized():
            distributed.destroy_process_group()
