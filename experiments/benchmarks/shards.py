"""How fast shards are indexed and read at random, and in how much memory."""

from __future__ import annotations

import io
import json
import multiprocessing
import shutil
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from resource import RUSAGE_SELF, getrusage

import numpy as np
from jsonargparse import auto_cli
from PIL import Image

from coincide_pl.data.batches import Size, plan_in_order
from coincide_pl.data.images import open_image
from coincide_pl.data.lengths import rough_lengths
from coincide_pl.data.readers import ShardDataset
from coincide_pl.data.records import Records
from coincide_pl.data.shards.packed import Packed


def write(folder: Path, shards: int, samples: int, side: int) -> int:
    """Writes tar shards of samples with a JPEG and a JSON each; returns their bytes."""
    random = np.random.default_rng(0)
    pictures = []
    for _ in range(16):
        file = io.BytesIO()
        pixels = random.integers(0, 255, (side // 8, side // 8, 3), np.uint8)
        Image.fromarray(pixels).resize((side, side)).save(file, "jpeg", quality=85)
        pictures.append(file.getvalue())
    folder.mkdir(parents=True)
    for shard in range(shards):
        with tarfile.open(folder / f"{shard:05}.tar", "w") as tar:
            for i in range(samples):
                number = shard * samples + i
                words = "and how many of them are there " * (number % 9)
                turns = [
                    {"from": "human", "value": f"<image>\nWhat is {number} {words}?"},
                    {"from": "gpt", "value": f"It is {number}, {words}."},
                ]
                about = {"id": str(number), "conversations": turns, "source": f"s{number % 7}"}
                for ending, content in (
                    ("jpg", pictures[number % 16]),
                    ("json", json.dumps(about).encode()),
                ):
                    member = tarfile.TarInfo(f"{number:09}.{ending}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
    return sum(file.stat().st_size for file in folder.iterdir())


def whole_path(folder: str, cache: str, threads: int, results: multiprocessing.Queue) -> None:
    """Index, records, plan, choice and list of members, in a process of their own."""
    reader = ShardDataset(folder, num_threads=threads)
    spent = {"peak before (MiB)": peak()}

    def timed(name: str, action: Callable[[], object]) -> object:
        begun = time.perf_counter()
        value = action()
        spent[f"{name} (s)"] = time.perf_counter() - begun
        return value

    reader.images_in(Path(cache))
    timed("index", reader._indices)
    timed("records", lambda: reader.records(cache))
    records = timed("opened again", lambda: ShardDataset(folder).records(cache))
    assert isinstance(records, Records)
    timed(
        "plan of predict",
        lambda: plan_in_order(rough_lengths(records), records.image_codes, Size(16, None)),
    )
    rows = np.random.default_rng(0).permutation(len(records))[: len(records) // 5]
    members = Path(cache, "members.json")
    timed("subset", lambda: reader.write_subset(records.numbers[rows], members))
    spent["peak (MiB)"] = peak()
    results.put(spent)


def reads(path: str, count: int, seed: int, results: multiprocessing.Queue) -> None:
    """Random reads in a process of their own, as a worker's."""
    records = Records(path)
    before = private()
    rows = np.random.default_rng(seed).integers(0, len(records), count)
    images = [records[int(row)].images[0] for row in rows]
    begun = time.perf_counter()
    for image in images:
        packed = Packed.of(image)
        assert packed is not None
        packed.read(records.image_root)
    middle = time.perf_counter()
    for image in images:
        open_image(records.image_root, image)
    end = time.perf_counter()
    results.put((count / (middle - begun), count / (end - middle), private() - before))


def peak() -> float:
    """The most memory that this process ever had, in MiB."""
    return getrusage(RUSAGE_SELF).ru_maxrss / 1024


def private() -> float:
    """Memory that this process alone uses, mapped pages of the records included, in MiB."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Private")) / 1024


def shards(
    shards: int = 4,
    samples: int = 500,
    side: int = 64,
    num_reads: int = 1000,
    workers: int = 2,
    num_threads: int = 8,
    folder: str | None = None,
) -> None:
    """Print rates and memory; 100 shards of 10,000 samples are `--shards=100 --samples=10000`.

    Args:
        shards: number of tar shards.
        samples: samples of each.
        side: pixels of an image's side.
        num_reads: random reads of each worker.
        workers: number of processes that read at once.
        num_threads: shards that are indexed at a time.
        folder: where the shards are written (default: a temporary folder).
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    try:
        begun = time.perf_counter()
        size = write(place / "shards", shards, samples, side)
        count = shards * samples
        print(f"{count:,} samples, {size / 1e6:,.0f} MB, written in {seconds(begun)} s")
        context = multiprocessing.get_context("spawn")
        results = context.Queue()
        where = (str(place / "shards"), str(place / "cache"))
        process = context.Process(target=whole_path, args=(*where, num_threads, results))
        process.start()
        spent = results.get()
        process.join()
        for name, value in spent.items():
            print(f"{name}: {value:,.2f}")
        print(f"indexed (1/s): {count / spent['index (s)']:,.0f}")
        path = str(next(place.glob("cache/*.arrow")))
        several = [
            context.Process(target=reads, args=(path, num_reads, seed, results))
            for seed in range(workers)
        ]
        for one in several:
            one.start()
        found = np.array([results.get() for _ in several])
        for one in several:
            one.join()
        print(f"random reads (1/s), {workers} workers: {found[:, 0].sum():,.0f}")
        print(f"random reads and decoded (1/s), {workers} workers: {found[:, 1].sum():,.0f}")
        print(f"used by a worker alone, mapped records included (MiB): {found[:, 2].max():,.1f}")
    finally:
        shutil.rmtree(place)


def seconds(begun: float) -> str:
    """How long it took since then."""
    return f"{time.perf_counter() - begun:,.1f}"


if __name__ == "__main__":
    sys.exit(auto_cli(shards))
