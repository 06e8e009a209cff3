"""The verb `subset`: a selection as data that any trainer can read."""

from __future__ import annotations

import logging
from contextlib import chdir
from pathlib import Path

from coincide_pl.reporting.origin import Origin
from coincide_pl.selection import Selection

log = logging.getLogger(__name__)


def subset(selection: str | Selection, output: str, run_config: str | None = None) -> None:
    """Write the selected records in the data set's own format, for another trainer.

    They stand in the order of picking, each as it is in its file, unknown keys too; image paths
    stay relative to the same image folder.

    Args:
        selection: the selection file, the run's directory that it lies in, or a selection that was
            read from its file.
        output: the file to write; for a data set in a folder, the folder.
        run_config: config of the run, for the data (default: `fit.yaml` or `select.yaml` beside the
            selection).

    Raises:
        CoincideError: the selection, config or data can't be read, or do not belong together.
    """
    target = Path(output).absolute()
    origin = Origin.of(selection, run_config)
    numbers = origin.records.numbers[origin.selection.indices]
    with chdir(origin.folder):
        origin.reader.write_subset(numbers.tolist(), target)
    log.info("%s: %d of %d records", output, len(numbers), len(origin.records))
