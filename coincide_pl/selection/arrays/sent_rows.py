"""Rows for the process that needs them: read from the store, or sent once, to local disk."""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from coincide_pl.processes import everywhere, exchanged, group_size, largest, own_share, refuse
from coincide_pl.ranks import speaks
from coincide_pl.selection.arrays.assigner import zero_unless_finite
from coincide_pl.selection.arrays.dtypes import Ints
from coincide_pl.selection.arrays.rows import Rows

log = logging.getLogger(__name__)

READ_ALONE = 1 << 15
"""Bytes of a row from which on reading rows here and there takes no longer than reading all in
order, sending them, and writing and reading them again."""
IN_CACHE = 0.5
"""Share of this machine's memory up to which a store is taken to be in its page cache."""


@contextmanager
def rows_for_all(
    rows: Rows, wanted: Ints, destinations: Ints, memory: int
) -> Iterator[tuple[Rows, Ints]]:
    """The rows that each process wants of a store; all must call together.

    Rows are read from the store where that is cheap: where they are large, or the store is so small
    that the page cache holds it. Otherwise each process reads its share of them from the first to
    the last, sends each to the process that wants it, and writes what it gets to a file in the
    directory for temporary files (`TMPDIR`), which is deleted at the end.

    Args:
        rows: the store, the same everywhere.
        wanted: int64 [m], the rows that this process wants, in the order in which it reads them.
        destinations: int [own share of the rows], the process that wants each; -1 for none.
        memory: bytes; a quarter of it is sent or received at once.

    Yields:
        Rows, and the numbers in these of those wanted.

    Raises:
        SelectionError: a row that is sent is not finite.
    """
    total, room = len(rows) * rows.row_bytes, shutil.disk_usage(tempfile.gettempdir()).free
    wide, small = rows.row_bytes >= READ_ALONE, total <= IN_CACHE * physical_memory()
    ranks, _ = group_size()
    fits = everywhere(len(wanted) * rows.row_bytes < room / ranks)  # others may write here, too
    if ranks == 1 or wide or everywhere(small) or not fits:
        if ranks > 1 and speaks():
            why = "large" if wide else "in the page cache" if fits else "too many for TMPDIR"
            log.info(
                "clusters' rows, of a store of %.3g GB and %.3g KB each, are read from it by the "
                "process of their cluster: they are %s",
                *(total / 1e9, rows.row_bytes / 1e3, why),
            )
        yield rows, wanted
        return
    if speaks():
        log.info(
            "clusters' rows, of a store of %.3g GB and %.3g KB each, are sent to the process of "
            "their cluster, and kept in %s meanwhile",
            *(total / 1e9, rows.row_bytes / 1e3, tempfile.gettempdir()),
        )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npy"
        _receive(rows, wanted, destinations, memory, path)
        received = np.load(path, mmap_mode="r") if len(wanted) else rows.gather(wanted)
        yield Rows(received), np.arange(len(wanted))


def _receive(rows: Rows, wanted: Ints, destinations: Ints, memory: int, path: Path) -> None:
    """Writes the rows wanted, in their order, to a file; sends those that others want."""
    ranks, _ = group_size()
    own = own_share(len(rows))
    height = max(1, memory // 4 // ranks // max(1, rows.row_bytes))
    longest = int(largest(np.array([own.stop - own.start]))[0])
    order, bad = np.argsort(wanted), -1
    ascending, nothing = wanted[order], np.empty((0, rows.width), rows.dtype)
    header = {"descr": rows.dtype.str, "fortran_order": False, "shape": (len(wanted), rows.width)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        begin = file.tell()
        file.truncate(begin + len(wanted) * rows.row_bytes)
        file.flush()
        blocks = rows.blocks(height, own)
        for _ in range(0, longest, height):
            span, block = next(blocks, (own, nothing))
            if len(block):
                bad = max(bad, zero_unless_finite(block, rows, span.start))
            to = destinations[span.start - own.start :][: len(block)]
            chosen = [np.flatnonzero(to == one) for one in range(ranks)]
            numbers = exchanged([some + span.start for some in chosen])
            sent = exchanged([block[some] for some in chosen])
            for which, part in zip(numbers, sent, strict=True):
                places = order[np.searchsorted(ascending, which)]
                for place, row in zip(places.tolist(), part, strict=True):
                    os.pwrite(file.fileno(), row.data, begin + place * rows.row_bytes)
    refuse(bad)


def physical_memory() -> int:
    """Bytes of memory of this machine."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
