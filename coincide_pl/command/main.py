"""The command `lightning`, also called `coincide`: plain functions, or Lightning's verbs."""

from __future__ import annotations

import inspect
import logging
import os
import re
import signal
import sys
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from lightning.fabric.utilities.warnings import PossibleUserWarning
from torch import distributed
from transformers.utils import logging as transformers_logging

from coincide_pl.command.cli import Command, Parser
from coincide_pl.command.configs import configs
from coincide_pl.command.launcher import PATIENCE, end_with_parent
from coincide_pl.data.check import check
from coincide_pl.errors import CoincideError, ConfigError, printable
from coincide_pl.interruption import Interrupted, interruption
from coincide_pl.models.conversion.convert import convert
from coincide_pl.models.export import export
from coincide_pl.models.tiny import tiny_clip, tiny_llava
from coincide_pl.reporting.compare import compare
from coincide_pl.reporting.overlap import overlap
from coincide_pl.reporting.report import report
from coincide_pl.reporting.subset import subset

UNTOLD = re.compile("Tip: For seamless|number of stepping batches|GPU available|TPU cores")
"""What Lightning says at every start and no user needs."""
FUNCTIONS: dict[str, Callable[..., None]] = {
    "check": check,
    "convert": convert,
    "export": export,
    "create-tiny-llava": tiny_llava,
    "create-tiny-clip": tiny_clip,
    "configs": configs,
    "compare": compare,
    "report": report,
    "overlap": overlap,
    "subset": subset,
}


OPERANDS = {
    "checkpoint": "directory of an original checkpoint",
    "run": "directory of a fit",
    "runs": "directories of runs, or W&B's files of them",
    "selection": "selection file, or its run's directory",
    "selections": "selection files, or their runs' directories",
}
"""Parameters of functions that are given without a name."""


def main(args: list[str] | None = None) -> None:
    """Runs the command line, and ends with a line and a status where the user can mend it."""
    words = sys.argv[1:] if args is None else args
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # a user's own selector, by its import path
    quiet()
    first = os.environ.get("LOCAL_RANK", "0") == "0"
    with interruption.listening():
        try:
            with interruption.until_the_end():
                run(words, args)
        except Interrupted:
            if first:
                sys.stderr.write(f"interrupted: {interruption.advice}\n")
            sys.exit(128 + (interruption.asked or signal.SIGINT))
        except Exception as error:
            if not isinstance(error, CoincideError):
                if not first:
                    time.sleep(PATIENCE)  # is it that the first process is gone? then so are we
                raise
            if first or not error.shared:
                line = str(error).strip()
                if line.startswith("Caught "):  # workers put a traceback in front
                    line = re.sub(rf"^(\w+\.)*{type(error).__name__}: ", "", line.splitlines()[-1])
                sys.stderr.write(f"error: {printable(line)}\n")
            sys.exit(1)
        finally:
            if distributed.is_available() and distributed.is_initialized():
                distributed.destroy_process_group()  # its threads must not outlive the interpreter


def run(words: list[str], args: list[str] | None) -> None:
    """Runs a function, or a verb of Lightning's."""
    for before, word in zip(["", *words], words, strict=False):
        path = word.removeprefix("--config=") if before != "--config" else word
        if path != word or before == "--config":
            check_text(path)
    if not words or words[0] not in FUNCTIONS:
        if os.environ.get("LOCAL_RANK", "0") != "0":
            end_with_parent()
        Command(args)
        return
    about = (FUNCTIONS[words[0]].__doc__ or "").partition("Args:")[0]  # each option has its own
    parser = Parser(prog=f"coincide {words[0]}", description=about)
    parser.add_argument("--config", action="config")
    function = FUNCTIONS[words[0]]
    known = inspect.signature(function).parameters
    operands = [n for n in OPERANDS if n in known and known[n].default is known[n].empty]
    for name in operands:
        parser.add_argument(name, nargs="+" if name.endswith("s") else None, help=OPERANDS[name])
    if "block" in known:
        operands.append("block")
        parser.add_argument("block", nargs="?", help="name of the one to print")
    parser.add_function_arguments(function, fail_untyped=False, skip={*operands})
    options = parser.instantiate_classes(parser.parse_args(words[1:]))
    options.pop("config")
    function(**options)


def check_text(path: str) -> None:
    """Refuses a config that is no text, which the parser would not take for a mistake.

    Raises:
        ConfigError: naming it.
    """
    with suppress(OSError, ValueError):  # the parser tells of a file that is not there
        content = Path(path).read_bytes()
        try:
            content.decode()
        except UnicodeDecodeError as error:
            raise ConfigError(f"{path}: not UTF-8 text ({error.reason})") from error


class Plain(logging.Formatter):
    """Shows names with control characters in them as they are spelt."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return "\n".join(map(printable, super().format(record).split("\n")))


def quiet() -> None:
    """Silence what says nothing to the user, and let our own log speak."""
    handler = logging.StreamHandler()
    handler.setFormatter(Plain())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("coincide_pl").setLevel(logging.INFO)
    transformers_logging.disable_progress_bar()
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda said: not UNTOLD.search(said.getMessage()))
    # Readers of small images are faster in the process itself.
    warnings.filterwarnings("ignore", ".*does not have many workers", PossibleUserWarning)
    # `ckpt_path: last` is there for the second start, not for the first.
    warnings.filterwarnings("ignore", '.*"last"\\) is set, but there is no last checkpoint')
    warnings.filterwarnings("ignore", ".*smaller than the logging interval", PossibleUserWarning)
    warnings.filterwarnings("ignore", "You defined a `validation_step` but have no `val_data")
    warnings.filterwarnings("ignore", "Precision .* is not supported by the model summary")
    # Between Lightning and torch; nothing a user can do.
    warnings.filterwarnings("ignore", ".*LeafSpec.* is deprecated")
    warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
