"""Memory, time and bytes sent of a selection by one, two and four processes of one machine.

`table` runs each number of processes in turn on the same generated features, and prints a table in
Markdown; the selections are compared byte for byte. `one` is what a process of such a group does.
`beyond` computes from rates that were measured what larger data would take.
"""

import hashlib
import json
import logging
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from features import LAYERS, write_features
from jsonargparse import auto_cli
from torch import distributed

from coincide_pl.processes import traffic
from coincide_pl.selection import Coincide, Pool
from coincide_pl.selection.cache import Cache

PER_CLUSTER = 66
"""Samples per cluster, as in the paper: 665,298 in 10,000."""
MIB = 2**20


def table(
    size: int = 500_000,
    width: int = 2560,
    iterations: int = 2,
    clustering: Literal["exact", "projected", "two_level"] = "projected",
    memory: float = 0.25,
    processes: tuple[int, ...] = (1, 2, 4),
    folder: str = "runs/benchmarks",
) -> None:
    """Store to selection of 20 % by groups of processes, one group after the other.

    Args:
        size: samples.
        width: of the features.
        iterations: rounds of k-means.
        clustering: how to cluster.
        memory: GiB for blocks, as the selector's.
        processes: how many, of each group.
        folder: for the features; needs 2 * size * width bytes.
    """
    path = Path(folder) / f"features-{size}-{width}.npy"
    if not path.exists():
        write_features(path, size, width, size // PER_CLUSTER)
    columns = ["clusters", "transferability", "density and order of picking", "picks"]
    head = ["processes", *(f"{name} (s)" for name in columns), "total (s)"]
    head += [
        "peak of a process without mapped files (MiB)",
        "beyond its libraries (MiB)",
        "sent by all (GB)",
    ]
    rows, digests = [head], set()
    for world in processes:
        with tempfile.TemporaryDirectory(dir=folder) as cache:
            words = [f"--path={path}", f"--cache={cache}", f"--clustering={clustering}"]
            words += [f"--iterations={iterations}", f"--memory={memory}"]
            members = run(world, words)
        stages = {name: max(one["stages"][name] for one in members) for name in columns}
        peak = max(one["peak"] for one in members)
        more = max(one["peak"] - one["start"] for one in members)
        received = sum(one["received"] for one in members)
        digests |= {one["digest"] for one in members}
        figures = [*(f"{stages[name]:.1f}" for name in columns), f"{sum(stages.values()):.1f}"]
        figures += [f"{peak / MIB:.0f}", f"{more / MIB:.0f}", f"{received / 1e9:.2f}"]
        rows.append([str(world), *figures])
        for line in members[0]["said"]:
            print(line)
        for line in [rows[0], ["---:"] * len(head), *rows[1:]]:
            print("| " + " | ".join(line) + " |", flush=True)
    print("the same selection" if len(digests) == 1 else "NOT the same selection", flush=True)


def run(world: int, words: list[str]) -> list[dict]:
    """What each of some processes tells of its part of a selection."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    threads = max(1, (os.cpu_count() or 1) // world)
    group = [
        subprocess.Popen(
            [sys.executable, __file__, "one", *words],
            env={
                **os.environ,
                "RANK": str(rank),
                "WORLD_SIZE": str(world),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "OMP_NUM_THREADS": str(threads),
            },
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    said = [process.communicate()[0] for process in group]
    if any(process.returncode for process in group):
        raise SystemExit(f"{world} processes: one has failed")
    return [json.loads(lines.splitlines()[-1]) for lines in said]


class Memory(threading.Thread):
    """Watches this process's memory without the pages of mapped files, which are the system's.

    Attributes:
        peak: the most so far, in bytes.
    """

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak = self.now()
        self.start()

    def run(self) -> None:
        while True:
            self.peak = max(self.peak, self.now())
            time.sleep(0.02)

    @staticmethod
    def now() -> int:
        """Bytes."""
        lines = Path("/proc/self/status").read_text().splitlines()
        return sum(int(line.split()[1]) << 10 for line in lines if line.startswith("RssAnon:"))


def one(path: str, cache: str, clustering: str, iterations: int, memory: float) -> None:
    """One process of a group; prints JSON."""
    messages: list[str] = []
    log = logging.getLogger("coincide_pl")
    log.setLevel(logging.DEBUG)
    log.addHandler(
        type("Keep", (logging.Handler,), {"emit": lambda _, r: messages.append(r.getMessage())})()
    )
    distributed.init_process_group("gloo")
    torch.ones(8, 8) @ torch.ones(8, 8)
    memory_used = Memory()
    start = memory_used.peak
    features = np.load(path, mmap_mode="r")
    signals, made_from = {"activations": features}, {"signals": path}
    pool = Pool(range(len(features)), signals, made_from, LAYERS, Cache(Path(cache), {}))
    selector = Coincide(
        len(features) // PER_CLUSTER,
        clustering=clustering,  # type: ignore[arg-type]
        num_iterations=iterations,
        memory_gib=memory,
    )
    indices = selector.pick(pool, len(features) // 5).indices
    found = [re.fullmatch(r"(.*): ([\d.]+) s", line) for line in messages]
    print(
        json.dumps(
            {
                "stages": {match[1]: float(match[2]) for match in found if match},
                "start": start,
                "peak": memory_used.peak,
                "received": traffic.received,
                "digest": hashlib.blake2b(np.asarray(indices).tobytes()).hexdigest(),
                "said": [line for line in messages if line.startswith("clusters' rows")],
            }
        )
    )
    distributed.destroy_process_group()


def beyond(
    samples: tuple[int, ...] = (665_298, 10_000_000, 100_000_000),
    machines: tuple[int, ...] = (1, 8, 64),
    width: int = 20480,
    float64: float = 1.2e11,
    fast: float = 9.2e11,
    disk: float = 2.8e9,
    over: float = 1.2,
) -> None:
    """What `two_level` clustering and all that follows would take, by arithmetic.

    Args:
        samples: N, of each column.
        machines: with one process each, of each column.
        width: D of the features; they are compared in 512 dimensions.
        float64: operations of a machine in a second, as `selection.py growth` measures them.
        fast: the same in the precision of the fast products.
        disk: bytes read in a second, as measured there.
        over: how many times as long as at these rates a selection took there.
    """
    columns = [
        forecast(n, p, width, float64, fast, disk, over)
        for n, p in zip(samples, machines, strict=True)
    ]
    head = [f"{n:,} on {p}" for n, p in zip(samples, machines, strict=True)]
    for line in [["", *head], ["---", *["---:"] * len(head)]]:
        print("| " + " | ".join(line) + " |")
    for name in columns[0]:
        print("| " + " | ".join([name, *(column[name] for column in columns)]) + " |")


def forecast(
    n: int, machines: int, width: int, float64: float, fast: float, disk: float, over: float
) -> dict[str, str]:
    """A column of `beyond`: what is done, held and sent, by name."""
    k, narrow, rounds = n / PER_CLUSTER, 512, 50
    cells = k**0.5
    compared = 2 * 2 * n * cells * narrow * rounds
    pairs = 1.5 * k * k * width  # each once, in full width and in the text halves
    kernels = 2 * 120 * n * width  # a sum of squared sizes of 120 N, as measured at 665,298
    read = 3 * 2 * n * width
    own = width * k / machines
    memory = {
        "narrow rows": 2 * n * narrow / machines,
        "sums and centroids, 12 bytes an entry": 12 * own,
        "labels and what is known of rows": 24 * n + 48 * n / machines,
    }
    # Narrow rows to the process of their cell, rows to that of their cluster, centroids twice.
    share = (machines - 1) / machines
    received = share * (2 * n * narrow + 2 * 2 * n * width) / machines + share * 8 * k * width
    times = {
        "comparing narrow rows": compared / fast / machines,
        "cosines of centroids": pairs / float64 / machines,
        "kernels": kernels / float64 / machines,
        "reading the store three times": read / disk / machines,
    }
    hours = over * sum(times.values()) / 3600
    return {
        "clusters": f"{k:,.0f}",
        "store (GB)": f"{2 * n * width / 1e9:,.0f}",
        **{
            f"{name} (operations)": f"{value:.1e}"
            for name, value in (
                ("comparing narrow rows, two levels", compared),
                ("cosines of centroids, float64", pairs),
                ("kernels, float64", kernels),
            )
        },
        **{f"{name} (h)": f"{value / 3600:.2f}" for name, value in times.items()},
        f"all, {over} times the sum (h)": f"{hours:.1f}",
        **{f"{name} (GB a machine)": f"{value / 1e9:,.1f}" for name, value in memory.items()},
        "beside `memory_gib` (GB a machine)": f"{sum(memory.values()) / 1e9:,.1f}",
        "received (GB a machine)": f"{received / 1e9:,.0f}",
        "network for a tenth of the time (Gbit/s)": f"{8 * received / 1e9 / (360 * hours):,.1f}",
    }


if __name__ == "__main__":
    auto_cli([table, beyond, one], as_positional=False)
