"""The selection file of a run: used again while it is what is asked for, made anew otherwise."""

from __future__ import annotations

import logging
from pathlib import Path

from coincide_pl.errors import CoincideError, SelectionError
from coincide_pl.processes import by_itself, on_first_process
from coincide_pl.selection.methods.everything import All
from coincide_pl.selection.selection import Selection
from coincide_pl.selection.selector import Pool, Selector, target_count

log = logging.getLogger(__name__)


def check_given(path: Path, data: str, num_rows: int) -> None:
    """Refuses a selection file, given by name without a selector, that is of other data.

    Args:
        path: the file.
        data: fingerprint of the records that it must choose from.
        num_rows: how many records these are.

    Raises:
        SelectionError: it is missing, damaged, or was made from other data.
    """
    found = Selection.load(path)
    if (found.made_from.get("data"), found.pool_size) != (data, num_rows):
        raise SelectionError(f"{path}: was made from other data than data.train")


def count_asked(selector: Selector, fraction: float | None, size: int) -> int:
    """How many rows a selector is to choose; says so where nobody said how many.

    Args:
        selector: chooses.
        fraction: share of the rows; None where it was not given, which stands for all.
        size: rows of the pool.

    Raises:
        SelectionError: the fraction is outside (0, 1], or leaves nothing.
    """
    if fraction is None and not isinstance(selector, All):
        log.warning(
            "data.fraction: not given, so %s chooses all %d samples; give the share to choose",
            type(selector).__name__,
            size,
        )
    return target_count(1.0 if fraction is None else fraction, size)


def is_as_asked(path: Path, selector: Selector, pool: Pool, count: int) -> bool:
    """Whether a file holds what a selector would choose, as far as fingerprints tell.

    Args:
        path: the selection file, which need not be there.
        selector: its class and hyperparameters must be the file's.
        pool: its size and fingerprints must be the file's.
        count: how many rows must have been chosen.
    """
    if not path.exists():
        return False
    try:
        found = Selection.load(path)
    except SelectionError as error:
        log.warning("%s: selecting again", error)
        return False
    asked = {
        "selector": selector.config,
        "made_from": pool.fingerprints,
        "pool_size": len(pool),
        "count": count,
    }
    if asked != found.description:
        log.info("%s: made from something else, selecting again", path)
        return False
    log.info("%s: as asked for, used again", path)
    return True


def select_into(path: Path, selector: Selector, pool: Pool, count: int) -> None:
    """Selects, on the first process or on all of them together, and writes the selection file.

    Args:
        path: the file; what is there is replaced.
        selector: chooses.
        pool: what it chooses from.
        count: how many rows.

    Raises:
        CoincideError: the selection can't be made or written; in every process.
    """
    chosen: Selection | None = None
    if selector.by_all_processes:
        try:
            chosen = selector.select(pool, count)
        except CoincideError as error:
            error.shared = True  # the data and settings are the same for all
            raise

    def save() -> None:
        with by_itself():
            (chosen or selector.select(pool, count)).save(path)
        log.info("%s: %d of %d samples", path, count, len(pool))

    on_first_process(save)
