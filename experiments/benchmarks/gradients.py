"""What gradients of each sample cost, and choosing by them, on one process.

`rate` compares the gradient pass with a plain forward and backward pass of the same batches, and
with one sample at a time, as the authors of LESS, ICONS and TIVE go. `project` compares the
projection with a matrix of random signs. `select` runs the three selectors on generated gradients.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from lightning import Trainer
from torch.nn import functional as F
from torch.utils.data import DataLoader

from coincide_pl.data.collation import Batch, EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.readers import EasyVQA
from coincide_pl.models import EpochCheckpoints, GradientModule, LoRA, TargetModule
from coincide_pl.models.per_sample import per_sample
from coincide_pl.models.projection import Projection
from coincide_pl.models.tiny import tiny_llava
from coincide_pl.reporting.tables import Table
from coincide_pl.selection import Icons, Less, Pool, Selector, Tive
from coincide_pl.signals import AdamGradient, Gradient, GradientNorm, Signal
from coincide_pl.signals.filling import SignalsWriter
from coincide_pl.signals.manifest import Manifest, Origin, StoredSignal

ROUNDS = 5
BLOCK = 8192
TASKS = 10
"""Tasks of the validation data, of 100 samples each; ICONS has ten benchmarks."""
SOURCES = 57


def rate(
    batch_size: int = 16,
    hidden_size: int = 256,
    num_layers: int = 6,
    rank: int = 16,
    size: int = 8192,
) -> None:
    """Samples a second of each way, and its time as a multiple of the plain pass's.

    Args:
        batch_size: samples of a batch.
        hidden_size: width of the language model.
        num_layers: its decoder layers.
        rank: of the adapters, on all its linear layers.
        size: width of the projection.
    """
    with TemporaryDirectory() as folder:
        pretrained, run = f"{folder}/model", f"{folder}/run"
        tiny_llava(pretrained, hidden_size=hidden_size, num_layers=num_layers, image_size=64)
        target = TargetModule(pretrained, torch.optim.AdamW, lora=LoRA(rank, 2 * rank, 0.0))
        data = EncodedBatches(EasyVQA().records(f"{folder}/cache"), Encoder(target.processor))
        batches = [data[[*range(i, i + batch_size)]] for i in range(0, 4 * batch_size, batch_size)]
        warm_up(target, batches[:1], run)
        ways = ways_of(partial(GradientModule, pretrained, run), data, batches, size)
        seconds = fastest(ways)
    plain = seconds["forward and backward of the batch"]
    count = len(batches) * batch_size
    lines = [[n, f"{count / s:.1f}", f"{s / plain:.2f}"] for n, s in seconds.items()]
    print(Table("Gradients", ["way", "samples a second", "time"], lines).markdown(), end="")


def warm_up(target: TargetModule, batches: Sequence[Batch], run: str) -> None:
    """A training checkpoint after one step."""
    loader: Any = DataLoader(batches, batch_size=None)
    trainer = Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        limit_val_batches=0,
        default_root_dir=run,
        callbacks=[EpochCheckpoints()],
    )
    trainer.fit(target, loader)


def ways_of(
    module: Callable[[list[str | Signal]], GradientModule],
    data: EncodedBatches,
    batches: Sequence[Batch],
    size: int,
) -> dict[str, Callable[[], None]]:
    """What is timed, by what it is."""
    asked: list[list[str | Signal]] = [
        [Gradient(size)],
        [Gradient(size), GradientNorm()],
        [Gradient(size), GradientNorm(), AdamGradient(size)],
    ]
    modules = [module(signals) for signals in asked]
    for one in modules:
        one.configure_model()
    first = modules[0]
    assert first.model is not None
    weights = [part.module.weight for part in first.adapters]
    numbers = sum(weight.numel() for weight in weights)
    print(f"{numbers:,} weights of {len(weights)} layers, {batches[0].input_ids.shape[1]} tokens")
    singles = [data[[int(row)]] for batch in batches for row in batch.rows]

    def backward(batches: Sequence[Batch], after: Callable[[], None]) -> None:
        for batch in batches:
            logits, targets = first.model(batch)
            F.cross_entropy(logits, targets).backward()
            after()

    def plain(batches: Sequence[Batch], keep: Callable[[], object]) -> None:
        for weight in weights:
            weight.requires_grad_(True)

        def after() -> None:
            keep()
            for weight in weights:
                weight.grad = None

        backward(batches, after)
        for weight in weights:
            weight.requires_grad_(False)

    def side_by_side() -> Any:
        return torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])

    def without_projection() -> None:
        with per_sample(first.adapters, lambda *_: None):
            backward(batches, lambda: None)

    def whole(one: GradientModule) -> None:
        for batch in batches:
            one.gradients(batch)

    return {
        "forward and backward of the batch": lambda: plain(batches, lambda: None),
        "gradients of each sample, not kept": without_projection,
        "gradient": lambda: whole(modules[0]),
        "gradient and gradient_norm": lambda: whole(modules[1]),
        "gradient, gradient_norm and adam_gradient": lambda: whole(modules[2]),
        "one sample at a time, not projected": lambda: plain(singles, side_by_side),
    }


def fastest(ways: dict[str, Callable[[], None]]) -> dict[str, float]:
    """Seconds of each way: the least of several rounds, in which all take turns."""
    found = dict.fromkeys(ways, float("inf"))
    for number in range(ROUNDS + 1):
        for name, way in ways.items():
            begin = time.perf_counter()
            way()
            if number:  # the first round warms up
                found[name] = min(found[name], time.perf_counter() - begin)
    return found


def project(numbers: int = 1 << 17, size: int = 8192, batch_size: int = 8) -> None:
    """Seconds of projecting the gradients of a batch by one weight.

    Args:
        numbers: of the weight.
        size: width of the projection.
        batch_size: samples of a batch.
    """
    gradients = torch.randn(batch_size, numbers)
    sketch = Projection(size, 0)

    def dense() -> None:  # a block of rows at a time, drawn anew, as no memory holds all of them
        generator = torch.Generator().manual_seed(0)
        out = torch.zeros(batch_size, size)
        for part in gradients.split(4096, 1):
            drawn = torch.randint(0, 2, (part.shape[1], size), generator=generator)
            out += part @ (drawn.float() * 2 - 1)

    def ours() -> None:
        sketch(0, gradients)

    seconds = fastest({"a matrix of random signs, in blocks": dense, "Projection": ours})
    lines = [[name, f"{value:.4f}"] for name, value in seconds.items()]
    print(Table("Projection", ["way", "seconds"], lines).markdown(), end="")


def select(
    folder: str, num_samples: list[int] | None = None, size: int = 8192, fraction: float = 0.2
) -> None:
    """Time and peak memory of each selector, in a process of its own.

    Args:
        folder: for the generated gradients, 16 KB a sample.
        num_samples: sizes of the pool (default: 100,000 and LLaVA-1.5's 665,298).
        size: width of the gradients.
        fraction: to choose.
    """
    header = ["selector", "samples", "seconds", "peak memory (MB)", "memory-mapped signals (MB)"]
    lines = []
    for count in num_samples or [100_000, 665_298]:
        place = Path(folder) / str(count)
        generate(place, count, size)
        for name in ("Less", "Icons", "Tive"):
            words = [sys.executable, __file__, "--one", name, str(place), str(fraction)]
            printed = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, peak, mapped = json.loads(printed.splitlines()[-1])
            lines.append([name, f"{count:,}", f"{seconds:.1f}", f"{peak:.0f}", f"{mapped:.0f}"])
            print(" | ".join(lines[-1]), flush=True)
    print(Table("Selectors", header, lines).markdown(), end="")


def manifest(count: int, size: int) -> Manifest:
    """What a store of gradients says of itself."""
    projected = {"size": size, "seed": 0, "target_modules": None}
    names = [str(task) for task in range(TASKS)]
    return Manifest(
        *("data", count, "model", "time:", {}, {}),
        {
            "gradient": StoredSignal("gradient", "", projected, None, [size], "float16"),
            "task": StoredSignal("task", "", {"names": names}, None, [], "int32"),
        },
        {},
    )


def generate(folder: Path, count: int, size: int) -> None:
    """Writes gradients of the data and of the tasks, unless they are there."""
    random = np.random.default_rng(0)
    folder.mkdir(parents=True, exist_ok=True)
    common = random.normal(size=(64, size)).astype(np.float32)

    def rows(number: int) -> Iterator[Any]:
        for start in range(0, number, BLOCK):
            near = random.normal(size=(min(BLOCK, number - start), 64)).astype(np.float32) @ common
            yield start, (near / np.linalg.norm(near, axis=1, keepdims=True)).astype(np.float16)

    path = folder / "gradient.npy"
    if not path.exists():
        aside = folder / ".gradient.npy"
        array = np.lib.format.open_memmap(aside, "w+", np.float16, (count, size))
        for start, block in rows(count):
            array[start : start + len(block)] = block
        array.flush()
        aside.rename(path)
    if not (folder / "tasks").exists():
        made = manifest(100 * TASKS, size)
        SignalsWriter.create(folder / "tasks", made)
        writer = SignalsWriter(folder / "tasks", made)
        for start, block in rows(100 * TASKS):
            numbers = np.arange(start, start + len(block))
            writer.write(numbers, {"gradient": block, "task": numbers % TASKS})
        writer.close()
        SignalsWriter.finish(folder / "tasks")


class Sourced(Sequence[Any]):
    """Records of which nothing but the source is known."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> Any:
        if not 0 <= index < self.count:
            raise IndexError(index)
        self.source = str(index % SOURCES)
        return self


def one(name: str, place: str, fraction: str) -> None:
    """Runs one selector and prints seconds, peak MB beyond the start, and MB of its signals."""
    tasks = [f"{place}/tasks"]
    choices: dict[str, Selector] = {"Less": Less(tasks), "Icons": Icons(tasks), "Tive": Tive()}
    gradients = np.load(Path(place) / "gradient.npy", mmap_mode="r")
    size = len(gradients)
    made = manifest(size, gradients.shape[1])
    origins = [Origin(made, made.signals["gradient"])]
    norms = np.random.default_rng(0).random(size, np.float32)
    pool = Pool(
        Sourced(size),
        {"gradient": gradients, "gradient_norm": norms},
        several={"adam_gradient": [gradients]},
        origins={"gradient": origins, "adam_gradient": origins},
    )
    count = int(float(fraction) * size)
    before, begin = peak_megabytes(), time.perf_counter()
    selection = choices[name].select(pool, count)
    seconds = time.perf_counter() - begin
    assert len(np.unique(selection.indices)) == count
    print(json.dumps([seconds, peak_megabytes() - before, gradients.nbytes / 1e6]))


def peak_megabytes() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        auto_cli([rate, project, select], as_positional=False)
