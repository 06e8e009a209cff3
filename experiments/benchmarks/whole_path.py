"""Time and peak memory of each command from tar shards to the members of a subset.

`predict` indexes the shards, plans its batches and passes a few of them through a tiny model. The
rows that are left get generated values, so that selectors read a store of all samples.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli
from shards import write

from coincide_pl.reporting.tables import Table
from coincide_pl.signals import SignalsWriter
from coincide_pl.signals.manifest import Manifest, read_manifest

BLOCK = 4096
"""Rows that are generated at a time."""
LAYERS = [1, 2, 3]


def measured(folder: Path, *arguments: str, expected: str = "") -> tuple[float, float, float]:
    """Runs the command in a folder.

    Args:
        folder: where it runs.
        arguments: of `coincide`.
        expected: what its last line says where it must fail.

    Returns:
        Its time in seconds, and its peak memory in MiB: all, and without mapped files, whose pages
        the system can take back at any time.

    Raises:
        SystemExit: it fails otherwise.
    """
    begun = time.perf_counter()
    with (folder / "log").open("w+") as log:
        command = [sys.executable, "-m", "coincide_pl", *arguments]
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log)
        own, ended = 0.0, 0
        while not ended:
            own = max(own, private(process.pid))
            time.sleep(0.02)
            ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        process.returncode = os.waitstatus_to_exitcode(status)
        log.seek(0)
        said = log.read()
    failed = process.returncode != 0
    if failed != bool(expected) or expected not in said:
        sys.exit(f"{' '.join(arguments)}:\n{said[-2000:]}")
    return time.perf_counter() - begun, usage.ru_maxrss / 1024, own


def private(process: int) -> float:
    """What a process holds now beside mapped files, in MiB."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0  # it has ended


def fill(store: Path) -> None:
    """Gives generated values to the rows that a store lacks, and seals it."""
    manifest, _ = read_manifest(store)
    writer = SignalsWriter(store, manifest)
    random = np.random.default_rng(0)
    left = np.flatnonzero(~writer.done)
    centers = random.normal(size=(2000, *manifest.signals["activations"].shape))
    for start in range(0, len(left), BLOCK):
        rows = left[start : start + BLOCK]
        writer.write(rows, generated(manifest, rows, centers, random))
    writer.close()
    SignalsWriter.finish(store)


def generated(
    manifest: Manifest, rows: np.ndarray, centers: np.ndarray, random: np.random.Generator
) -> dict[str, np.ndarray]:
    """Values of every signal for some rows; activations lie about centers, of norm 1."""
    near = centers[random.integers(0, len(centers), len(rows))]
    near = near + 0.5 * random.normal(size=near.shape)
    near /= np.linalg.norm(near, axis=1, keepdims=True)
    scores = {name: random.random(len(rows)) for name in manifest.signals}
    return {**scores, "activations": near}


def whole_path(
    shards: int = 2,
    samples: int = 300,
    side: int = 32,
    num_clusters: int = 20,
    num_iterations: int = 20,
    hidden_size: int = 32,
    memory_gib: float = 0.1,
    methods: Sequence[str] = ("random", "el2n", "coincide", "per-source"),
    forms: Sequence[str] = ("own", "rows", "energon", "ids"),
    folder: str | None = None,
) -> None:
    """Print a table; 665,298 samples are `--shards=46 --samples=14463`.

    Args:
        shards: number of tar shards.
        samples: samples of each.
        side: pixels of an image's side.
        num_clusters: clusters of COINCIDE.
        num_iterations: rounds of its k-means.
        hidden_size: of the tiny model; activations of three layers are six times as wide.
        memory_gib: GiB that COINCIDE may take for blocks of rows.
        methods: what chooses, of these four; the first choice is written as subsets.
        forms: of the subsets.
        folder: where all is written (default: a temporary folder).
    """
    place = Path(tempfile.mkdtemp(dir=folder))
    lines: list[list[str]] = []

    def line(name: str, found: tuple[float, float, float]) -> None:
        lines.append([name, f"{found[0]:,.1f}", *(f"{memory:,.0f}" for memory in found[1:])])
        print(*lines[-1], flush=True)

    try:
        write(place / "shards", shards, samples, side)
        size = f"--hidden_size={hidden_size}"
        measured(place, "create-tiny-llava", "--output=tiny", "--image_size=32", size)
        data = (
            *("--data=InstructionData", "--data.train=ShardDataset", "--data.train.path=shards"),
            "--data.cache_dir=cache",
        )
        predict = (
            *("predict", *data, "--config", "models/reference", "--model.pretrained=tiny"),
            *(f"--model.layers={LAYERS}", "--model.signals=[activations,el2n]"),
            *("--data.signals=signals", "--data.eval_batch_size=16", "--trainer.accelerator=cpu"),
        )
        few = measured(
            place, *predict, "--trainer.limit_predict_batches=4", expected="rows are missing"
        )
        line("predict: index, records, plan, 64 samples", few)
        fill(place / "signals")
        line("predict again: all rows are done", measured(place, *predict))
        choice = ("--data.fraction=0.2", "--data.signals=signals")
        coincide = (
            *("--config", "selectors/coincide", f"--data.selector.num_clusters={num_clusters}"),
            *(f"--data.selector.num_iterations={num_iterations}",),
            f"--data.selector.memory_gib={memory_gib}",
        )
        selectors = {
            "random": ("--data.selector=Random",),
            "el2n": ("--data.selector=EL2N",),
            "coincide": coincide,
            "per-source": ("--data.selector=PerSource", "--data.selector.selector=EL2N"),
        }
        for name in methods:
            root = f"--trainer.default_root_dir={name}"
            words = ("select", *data, *selectors[name], *choice, root)
            line(f"select: {name}", measured(place, *words))
        for form in forms:
            out = ("subset", methods[0], f"--output=chosen-{form}.json", f"--form={form}")
            line(f"subset: {form}", measured(place, *out))
            line(f"subset: {form}, checked", measured(place, *out, "--check=true"))
        print(
            Table(
                "", ["command", "seconds", "peak (MiB)", "without mapped files"], lines
            ).markdown()
        )
    finally:
        shutil.rmtree(place)


if __name__ == "__main__":
    sys.exit(auto_cli(whole_path))
