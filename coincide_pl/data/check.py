"""Look through a data set before anything is trained on it: every record, every image."""

from __future__ import annotations

import sys

import numpy as np

from coincide_pl.data.images import unusable_images
from coincide_pl.data.readers.findings import Findings
from coincide_pl.data.readers.reader import Reader
from coincide_pl.errors import DataError, printable


def check(
    train: Reader, cache_dir: str = "~/.cache/coincide_pl", num_threads: int | None = None
) -> None:
    """Read a data set and open each of its images; prints a line for all that can't be used.

    Args:
        train: reader of the data set.
        cache_dir: folder for the records while they are looked through.
        num_threads: number of images that are opened at a time (default: two for each core).

    Raises:
        DataError: the files can't be read, or records or images can't be used.
    """
    findings = Findings()
    records = train.survey(cache_dir, findings)
    sys.stdout.writelines(findings.text())
    names, rows = records.images
    bad = unusable_images(records.image_root, list(names), num_threads)
    for name, reason in bad.items():
        own = rows[names[name]]
        others = f", and {len(own) - 1} more" if len(own) > 1 else ""
        print(printable(f"{records.name(int(own[0]))}{others}: {reason}"))
    for what, count in findings.changes.items():
        print(f"{count:,} {what}")
    print(f"{findings.count:,} records, {len(names):,} images")
    faults = []
    if findings.lines:
        faults.append(f"{len(findings.lines):,} records can't be used")
    if bad:
        hit = len(np.unique(np.concatenate([rows[names[name]] for name in bad])))
        faults.append(f"{len(bad):,} images of {hit:,} records can't be used")
    if faults:
        raise DataError("; ".join(faults))
