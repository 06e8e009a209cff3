"""What a shell's Tab offers: by argcomplete, the shell asks the command how a word goes on.

Nothing here is imported otherwise.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser

import argcomplete
from argcomplete.completers import FilesCompleter

from coincide_pl.command.configs import FLAGS, blocks
from coincide_pl.command.verbs import BY_NAME


def verb_of_line() -> str:
    """The verb of the line that is completed, whose parser then answers for its options.

    A verb itself and the name of a block are answered here, at once, and the process ends.
    """
    line = os.environ["COMP_LINE"][: int(os.environ["COMP_POINT"])]
    words = line.split()
    before = words if line[-1].isspace() else words[:-1]
    named = len(before) > 1 and before[1] in BY_NAME
    last = "" if line[-1].isspace() else words[-1]
    if not named or before[-1] in FLAGS or last.startswith("--config="):
        parser = ArgumentParser(add_help=False)
        parser.add_argument("verb", choices=BY_NAME)
        config = parser.add_argument(*FLAGS, action="append")
        config.completer = _configs  # type: ignore[attr-defined]
        argcomplete.autocomplete(parser)
    os.environ["_ARGCOMPLETE"] = "2"  # the words of the parser begin behind the verb
    return before[1]


def _configs(prefix: str, **others: object) -> list[str]:
    """Blocks and files that begin so."""
    own = [name for name in blocks() if name.startswith(prefix)]
    return [*own, *FilesCompleter(("yaml",))(prefix)]
