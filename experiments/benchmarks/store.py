"""What a store costs: filling it, sealing it, and reading arrays of several files as those of one.

Every pair is measured in turns in one run, and the medians are compared.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
from jsonargparse import auto_cli

from coincide_pl.reporting.tables import Table
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.signals import SignalsStore, SignalsWriter, sealing
from coincide_pl.signals.manifest import Manifest, StoredSignal

BATCH = 64
BLOCK = 4096
"""Rows that are read at once."""


def main(
    folder: str = "runs/benchmarks/store",
    num_samples: int = 100_000,
    width: int = 2560,
    file_mib: int = 32,
    rounds: int = 7,
) -> None:
    """Measures and prints the tables.

    Args:
        folder: for the stores; those that are there are made again.
        num_samples: N.
        width: float16 numbers of a row.
        file_mib: MiB of a file of the store in several.
        rounds: of each measurement.
    """
    stores = {}
    size = num_samples * width * 2
    filling = Table("", ["what", "seconds", "GB/s"], [])
    for name, most in {"one file": 1 << 40, "several": file_mib << 20}.items():
        place = Path(folder) / name.replace(" ", "-")
        shutil.rmtree(place, ignore_errors=True)
        sealing.FILE_BYTES = most
        for what, seconds in fill(place, num_samples, width).items():
            filling.lines.append(
                [f"{what}, {name}", f"{seconds:.2f}", f"{size / seconds / 1e9:.2f}"]
            )
        stores[name] = SignalsStore(place)
    paths = [path for path, _ in stores["one file"].contents.paths(place.parent / "one-file")]
    seconds = timed(lambda: hashlib.blake2b(paths[0].read_bytes()))
    filling.lines.append(
        ["reading and digest alone", f"{seconds:.2f}", f"{size / seconds / 1e9:.2f}"]
    )
    print(filling.markdown())
    assert stores["one file"].fingerprint == stores["several"].fingerprint
    files = stores["several"].contents.num_files("activations")
    table = Table("", ["reading", "one file (s)", f"{files} files (s)", "ratio", "pread (s)"], [])
    for what, read in readings(num_samples).items():
        taken: dict[str, list[float]] = {name: [] for name in stores}
        for _ in range(rounds):
            for name, store in stores.items():
                rows = Rows(store["activations"])
                taken[name].append(timed(lambda rows=rows, read=read: read(rows)))
        one, several = (median(taken[name]) for name in stores)
        plain = f"{plainly(paths[0]):.3f}" if what.startswith("all rows") else ""
        table.lines.append([what, f"{one:.3f}", f"{several:.3f}", f"{several / one:.2f}", plain])
    print(table.markdown())


def fill(place: Path, num_samples: int, width: int) -> dict[str, float]:
    """Fills a store from two starts with rows in random order; seconds of each step."""
    activations = StoredSignal("activations", "Activations", {}, None, [width], "float16")
    made = Manifest("d", num_samples, "m", "time:i", {}, {}, {"activations": activations}, {})
    random = np.random.default_rng(0)
    values = random.normal(size=(BATCH, width)).astype(np.float16)
    order = random.permutation(num_samples)
    SignalsWriter.create(place, made)
    seconds = 0.0
    for rank, own in enumerate(np.array_split(order, 2)):
        writer = SignalsWriter(place, made, rank)
        for start in range(0, len(own), BATCH):
            rows = own[start : start + BATCH]
            values[:, 0] = start % 2048  # no two batches are the same
            begin = time.perf_counter()
            writer.write(rows, {"activations": values[: len(rows)]})
            seconds += time.perf_counter() - begin
        seconds += timed(writer.close)
    return {"writing": seconds, "sealing": timed(lambda: SignalsWriter.finish(place))}


def readings(num_samples: int) -> dict[str, Callable[[Rows], object]]:
    """What selection does with rows."""
    random = np.random.default_rng(0)
    few = random.permutation(num_samples)[:BLOCK]
    cluster = np.sort(random.permutation(num_samples)[: num_samples // 4])
    blocks = np.array_split(cluster, max(1, len(cluster) // BLOCK))
    return {
        "all rows in blocks": lambda rows: [block[0, 0] for _, block in rows.blocks(BLOCK)],
        "a quarter of the rows, ascending": lambda rows: [rows.gather(one)[0, 0] for one in blocks],
        f"{BLOCK} rows at random, as floats": lambda rows: rows.floats(few, normalize=False),
        "all rows as floats": lambda rows: [
            rows.floats(span, normalize=False)[0, 0] for span in rows.float_spans()
        ],
    }


def plainly(path: Path) -> float:
    """Seconds to read a file from its beginning to its end."""
    file, buffer = os.open(path, os.O_RDONLY), bytearray(20 << 20)

    def read() -> None:
        at = 0
        while count := os.preadv(file, [buffer], at):
            at += count

    try:
        return median(timed(read) for _ in range(5))
    finally:
        os.close(file)


def timed(action: Callable[[], object]) -> float:
    """Seconds that something takes."""
    begin = time.perf_counter()
    action()
    return time.perf_counter() - begin


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
