"""Mistakes a user can mend: one line each, naming the file, record or option, and what to do."""


class CoincideError(Exception):
    """Base of all errors that the command prints as one line, without a traceback."""


class DataError(CoincideError):
    """A data file, record, conversation or image that can't be used."""


class SignalsError(CoincideError):
    """A signals store that is missing, incomplete, damaged, or made from something else."""


class SelectionError(CoincideError):
    """A selection that can't be computed as asked, or a selection file that does not fit."""


class ModelError(CoincideError):
    """A checkpoint without a usable model, or a model without the part asked for."""
