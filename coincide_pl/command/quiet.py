"""What is kept from the user's eyes: lines that say nothing to be done, each with the reason."""

from __future__ import annotations

import logging
import re
import sys
import warnings

from coincide_pl.errors import printable

LOGGED = {
    "Tip: For seamless": "advertises another product",
    "number of stepping batches": "the length of a run is the schedule's affair, and it has asked",
    "GPU available": "said at every start, whether or not there is one",
    "TPU cores": "said at every start",
}
"""Beginnings or parts of lines that Lightning logs, and why nobody needs them."""
WARNED = {
    ".*does not have many workers": "readers of small images are faster in the process itself",
    ".*smaller than the logging interval": "an epoch may be short",
    "You defined a `validation_step` but have no `val_data": "a choice of the user's",
    "Precision .* is not supported by the model summary": "it concerns one column of a table",
    ".*LeafSpec.* is deprecated": "is between Lightning and torch",
    "Checkpoint directory .* exists and is not empty": "a run goes on in its own directory",
}
"""Patterns of warnings, from their beginning, and why nobody needs them."""


class Plain(logging.Formatter):
    """Shows names with control characters in them as they are spelled."""

    def format(self, record: logging.LogRecord) -> str:
        """The message alone."""
        return "\n".join(map(printable, super().format(record).split("\n")))


def quiet() -> None:
    """Lets the package's own log speak, and silences what is listed above."""
    quiet_libraries()
    handler = logging.StreamHandler()
    handler.setFormatter(Plain())
    logging.basicConfig(handlers=[handler])
    logging.getLogger("coincide_pl").setLevel(logging.INFO)
    unneeded = re.compile("|".join(LOGGED))
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda line: not unneeded.search(line.getMessage()))
    for pattern in WARNED:
        warnings.filterwarnings("ignore", pattern)


def quiet_libraries() -> None:
    """Silences what libraries set up for themselves when they were imported, where they were."""
    if (module := sys.modules.get("transformers.utils.logging")) is not None:
        module.disable_progress_bar()
    logging.getLogger("lightning").handlers.clear()  # its lines come through our handler already
