"""Mistakes a user can mend: one line each, naming the file, record or option, and what to do."""

from __future__ import annotations

import os

GO_ON = "the same command goes on from here"
"""What ends the line about a run that was not to blame."""


class CoincideError(Exception):
    """Base of all errors that the command prints as one line, without a traceback."""

    shared = False
    """Whether every process of the run raises it, so that the first one alone prints it."""
    status = 1
    """The exit status of the command."""


class ConfigError(CoincideError):
    """Options that do not go together."""


class DataError(CoincideError):
    """A data file, record, conversation or image that can't be used."""


class FileError(CoincideError):
    """A file or directory that can't be written, or that another process writes."""


class ProcessError(CoincideError):
    """A process of the run that came to its end before its work did."""

    status = os.EX_TEMPFAIL


class SignalsError(CoincideError):
    """A signals store that is missing, incomplete, damaged, or made from something else."""


class SelectionError(CoincideError):
    """A selection that can't be computed as asked, or a selection file that does not fit."""


class ModelError(CoincideError):
    """A checkpoint without a usable model, or a model without the part asked for."""


def printable(text: str) -> str:
    """One line that a terminal only shows: what would move or color it is spelled out."""
    return "".join(sign if sign.isprintable() else repr(sign)[1:-1] for sign in text)
