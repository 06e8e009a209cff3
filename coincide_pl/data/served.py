"""What callbacks and modules may ask of the DataModule of the run that they take part in."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, cast

import numpy as np

from coincide_pl.data.encoding import Encoder
from coincide_pl.data.records import Records

if TYPE_CHECKING:
    import lightning


class ServedData(Protocol):
    """The data of a run, as its callbacks and its module see them.

    Attributes:
        records: the training records, which `predict` reads too.
        test_records: the questions of a test.
        encoder: what turns records into tokens.
        max_length: tokens of a conversation at most, as asked for.
        signals: directory of the signals, or a list of directories; None where there are none.
        rows_done: bool [N], rows whose signals are stored already; None where none are.
        rows_answered: bool [N], test rows that are answered already; None where none are.
        signals_read: fingerprints of the stores that were read, by directory.
    """

    records: Records
    test_records: Records
    encoder: Encoder
    max_length: int
    signals: str | list[str] | None
    rows_done: np.ndarray | None
    rows_answered: np.ndarray | None
    signals_read: dict[str, str]

    def images_state(self) -> str:
        """The state of the training records' images, which is another once one has changed."""

    def signal(self, name: str, reader: str) -> np.ndarray:
        """A signal of the training records, memory-mapped, [N, ...].

        Args:
            name: of the signal.
            reader: who needs it, as an error message should say.

        Raises:
            SelectionError: no store that the run names holds it.
        """


def served(trainer: lightning.Trainer) -> ServedData:
    """The DataModule of a trainer's run."""
    return cast(ServedData, getattr(trainer, "datamodule", None))
