"""Reading data sets of the paper's size, what it holds in memory, and looking through images.

Records and images are generated. `records` reads a LLaVA-format file and the same as Parquet in the
chat format, and lets loader workers go through all records, beside a file of 1,000 to tell what the
interpreter takes; `images` times what `coincide check` does with images.
"""

import os
import shutil
import time
import warnings
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jsonargparse import auto_cli
from PIL import Image
from report import generate
from torch.utils.data import DataLoader, Dataset

from coincide_pl.data.batches import Plan, Size, plan_shuffled
from coincide_pl.data.images import open_image, unusable_images
from coincide_pl.data.lengths import rough_lengths
from coincide_pl.data.readers import ChatDataset, EasyVQA, LlavaJson
from coincide_pl.data.readers.json_text import json_array, json_items
from coincide_pl.data.records import Records
from coincide_pl.files import write_text
from coincide_pl.reporting.tables import Table

ROLES = {"human": "user", "gpt": "assistant"}


def records(folder: str = "runs/benchmarks/report", samples: int = 665_298) -> None:
    """Reads twice, plans an epoch, and goes through it in 1 and 4 workers.

    Args:
        folder: for what is generated, about 1 KB a sample.
        samples: records, with one to five questions each.
    """
    place = Path(folder)
    path = generate(place, samples, np.random.default_rng(0))
    cache = place / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    few = place / "few.json"
    write_text(few, json_array(islice(json_items(path), 1_000)))
    lines = []
    for make, file in ((LlavaJson, few), (LlavaJson, path), (ChatDataset, as_parquet(path))):
        count = 1_000 if file == few else samples
        line = [make.__name__, f"{count:,}", f"{file.stat().st_size / 1e6:.0f}"]
        with ProcessPoolExecutor(1, get_context("spawn")) as alone:
            line += alone.submit(times, make, file, cache).result()
        for workers in (1, 4):
            with ProcessPoolExecutor(1, get_context("spawn")) as alone:
                line += alone.submit(memory, make, file, cache, workers).result()
        lines.append(line)
    header = ["reader", "records", "MB", "read (s)", "opened again (s)", "plan of an epoch (s)"]
    header += ["peak while reading (MiB)", "1 worker: resident", "1 worker and its parent"]
    header += ["4 workers: resident, the largest", "4 workers and their parent"]
    print(Table("Reading", header, lines).markdown(), end="")


def epoch_of(found: Records) -> Plan:
    """The batches of an epoch, as `fit` plans them."""
    return plan_shuffled(
        rough_lengths(found), found.image_counts > 0, Size(rows=16), seed=0, epoch=0
    )


def times(make: type, file: Path, cache: Path) -> list[str]:
    """Seconds of a first and a second reading and of a plan, and the peak of memory."""
    spent = []
    for _ in range(2):
        begin = time.perf_counter()
        found = make(str(file)).records(cache)
        spent.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    epoch_of(found)
    plan = time.perf_counter() - begin
    peak = status("/proc/self/status", "VmHWM")
    return [f"{spent[0]:.1f}", f"{spent[1]:.3f}", f"{plan:.1f}", f"{peak:.0f}"]


def memory(make: type, file: Path, cache: Path, workers: int) -> list[str]:
    """Memory of loader workers that have gone through all records, and of all processes."""
    warnings.filterwarnings("ignore", "This DataLoader will create 4 worker processes")
    found = make(str(file)).records(cache)
    plan = epoch_of(found)
    left = [(rows, len(plan) - number < 64) for number, rows in enumerate(plan)]
    loader = DataLoader(Memory(found), batch_size=None, sampler=left, num_workers=workers)
    largest: dict[int, tuple[float, float]] = {}
    for pid, *sizes in loader:
        if sizes:
            largest[pid] = tuple(sizes)
    own = status("/proc/self/smaps_rollup", "Pss")
    total = own + sum(pss for _, pss in largest.values())
    return [f"{max(rss for rss, _ in largest.values()):.0f}", f"{total:.0f}"]


class Memory(Dataset):
    """Reads the records of a batch; tells what memory its process then holds, if asked to."""

    def __init__(self, found):
        self.found = found

    def __getitem__(self, batch):
        rows, tell = batch
        for row in rows:
            self.found[row]
        keys = ("Rss", "Pss") if tell else ()
        return os.getpid(), *(status("/proc/self/smaps_rollup", key) for key in keys)


def status(path: str, key: str) -> float:
    """A figure that Linux keeps of this process, in MiB."""
    with open(path) as file:
        return next(int(line.split()[1]) for line in file if line.startswith(f"{key}:")) / 1024


def as_parquet(path: Path) -> Path:
    """The same data as messages in a Parquet file, unless it is there."""
    target = path.with_suffix(".parquet")
    if target.exists():
        return target
    message = pa.struct([("role", pa.string()), ("content", pa.string())])
    columns = {"id": pa.string(), "images": pa.list_(pa.string()), "messages": pa.list_(message)}
    schema = pa.schema(list(columns.items()))
    aside = target.with_name(f".{target.name}")
    source = json_items(path)
    with pq.ParquetWriter(aside, schema) as writer:
        while items := list(islice(source, 10_000)):
            rows = [
                {
                    "id": item["id"],
                    "images": [item["image"]] if "image" in item else [],
                    "messages": [
                        {"role": ROLES[turn["from"]], "content": turn["value"]}
                        for turn in item["conversations"]
                    ],
                }
                for item in items
            ]
            writer.write_table(pa.Table.from_pylist(rows, schema))
    aside.rename(target)
    return target


def images(folder: str = "runs/benchmarks/images", count: int = 300) -> None:
    """Looks through easy-VQA's training images and through generated photographs.

    Args:
        folder: for the photographs, 1024 by 683 pixels.
        count: of photographs.
    """
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    for number in range(count - len(list(place.iterdir()))):
        small = Image.fromarray(random.integers(0, 255, (40, 60, 3), np.uint8))
        pixels = np.asarray(small.resize((1024, 683), Image.Resampling.BICUBIC)).astype(int)
        pixels = (pixels + random.integers(-12, 12, pixels.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(place / f"{number}.jpg", quality=90)
    easy = EasyVQA("train").image_root
    lines = []
    for what, root in (("easy-VQA, 64 x 64 PNG", easy), ("1024 x 683 JPEG", place)):
        names = sorted(path.name for path in root.iterdir())
        spent = [seconds(all_opened, root, names)]
        spent += [seconds(unusable_images, root, names, threads) for threads in (1, 2, 4)]
        for workers in (1, 2):
            with ProcessPoolExecutor(workers) as pool:
                in_processes(pool, root, names[: 64 * workers])  # now the processes are there
                spent.append(seconds(in_processes, pool, root, names))
        size = np.mean([(root / name).stat().st_size for name in names]) / 1e3
        lines.append([what, f"{size:.1f}", *(f"{len(names) / s:,.0f}" for s in spent)])
    header = ["images", "KB", "opened for training (1/s)", "1 thread", "2 threads", "4 threads"]
    print(Table("Images", [*header, "1 process", "2 processes"], lines).markdown(), end="")


def all_opened(root: Path, names: list[str]) -> None:
    for name in names:
        open_image(root, name)


def in_processes(pool: ProcessPoolExecutor, root: Path, names: list[str]) -> None:
    parts = [names[i : i + 64] for i in range(0, len(names), 64)]
    list(pool.map(partial(unusable_images, root, num_threads=1), parts))


def seconds(action, *args) -> float:
    begin = time.perf_counter()
    action(*args)
    return time.perf_counter() - begin


if __name__ == "__main__":
    auto_cli({"records": records, "images": images}, as_positional=False)
