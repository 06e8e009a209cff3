"""Look through a data set before anything is trained on it: every image, and who shows it."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from rich.progress import track

from coincide_pl.data.images import open_image
from coincide_pl.data.readers.reader import Reader
from coincide_pl.errors import DataError


def check(
    train: Reader, cache_dir: str = "~/.cache/coincide_pl", num_threads: int | None = None
) -> None:
    """Read a data set and open each of its images; prints a line for each that can't be used.

    Args:
        train: the data.
        cache_dir: folder for the records in memory-mapped form.
        num_threads: images that are opened at a time (default: as many as there are cores).

    Raises:
        DataError: the records can't be read, or images can't be used.
    """
    records = train.records(cache_dir)
    names, rows = records.images
    bad = unusable(records.image_root, list(names), num_threads or os.cpu_count() or 1)
    for name, reason in bad.items():
        own = rows[names[name]]
        others = f", and {len(own) - 1} more" if len(own) > 1 else ""
        print(f"{records.name(int(own[0]))}{others}: {reason}")
    print(f"{len(records):,} records, {len(names):,} images")
    if bad:
        hit = len(np.unique(np.concatenate([rows[names[name]] for name in bad])))
        raise DataError(f"{len(bad):,} images of {hit:,} records can't be used")


def unusable(root: Path, names: list[str], num_threads: int) -> dict[str, str]:
    """Images that can't be opened and decoded, with the reason, in the order of `names`."""
    with ThreadPoolExecutor(num_threads) as pool:
        reasons = track(
            pool.map(partial(reason, root), names),
            "images",
            total=len(names),
            disable=not sys.stdout.isatty(),
        )
        return {name: why for name, why in zip(names, reasons, strict=True) if why is not None}


def reason(root: Path, name: str) -> str | None:
    """Why an image can't be used, or None."""
    try:
        open_image(root, name)
    except DataError as error:
        return str(error)
    return None
