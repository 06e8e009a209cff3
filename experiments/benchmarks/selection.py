"""How fast a selection is, how much memory it takes, and how far both are from the limit.

`picks` compares with the authors' formula written out, `growth` follows the size of the data,
`agreement` compares the ways to cluster, `rounds` compares exact clustering with a plain Lloyd,
`digests` tells selections apart. Each part prints its table in Markdown.
"""

import json
import logging
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import faiss
import numpy as np
import torch
from features import LAYERS, write_features
from jsonargparse import auto_cli

from coincide_pl.selection import Coincide, Pool, Selection, density, greedy_mmd, pick
from coincide_pl.selection.arrays import groups, nearest
from coincide_pl.selection.arrays.kmeans import METHODS, spherical_kmeans
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.cache import Cache
from coincide_pl.selection.steps.kernels import Kernel

GIB = 2.0**30
PER_CLUSTER = 66
"""Samples per cluster, as in the paper: 665,298 in 10,000."""


def plain_kernel(rows: np.ndarray) -> np.ndarray:
    """The Gaussian kernel of a cluster with itself, σ = 1."""
    x = rows.astype(np.float64)
    squares = (x * x).sum(1)
    return np.exp(-(squares[:, None] + squares[None] - 2 * x @ x.T) / 2)


def plain_picks(kernel: np.ndarray, count: int) -> list[int]:
    """The authors' formula: every candidate set's discrepancy from the beginning."""
    mean, chosen = kernel.mean(), []
    for _ in range(count):
        best, least = -1, np.inf
        for candidate in range(len(kernel)):
            if candidate in chosen:
                continue
            some = [*chosen, candidate]
            mmd = mean + kernel[np.ix_(some, some)].mean() - 2 * kernel[:, some].mean()
            if mmd < least:
                best, least = candidate, mmd
        chosen.append(best)
    return chosen


def plain_selection(
    features: np.ndarray, labels: np.ndarray, scores: np.ndarray, fraction: float
) -> np.ndarray:
    """The authors' walk with plain picks; may end short of the count."""
    groups = [np.flatnonzero(labels == c) for c in range(len(scores))]
    dense = np.asarray(density(features, labels))
    shares = np.exp(scores / dense / 0.1)
    left, rows = int(fraction * len(features)), []
    order = np.argsort(shares)[::-1]
    for i, cluster in enumerate(order):
        own = groups[cluster]
        want = round(left * shares[cluster] / shares[order[i:]].sum())
        some = own if want > len(own) else own[plain_picks(plain_kernel(features[own]), want)]
        rows.append(some)
        left -= len(some)
    return np.concatenate(rows)


def picks(size: int = 800, count: int = 160, samples: int = 4000) -> None:
    """One cluster, and a whole selection, against the authors' formula; equal picks are checked.

    Args:
        size: of the cluster.
        count: picks in it.
        samples: of the whole selection, in clusters of about 66.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        write_features(path, max(size, samples), 2560, samples // PER_CLUSTER)
        features = np.load(path)
    rows = [["what", "plain (s)", "ours (s)", "ratio", "equal picks"]]
    cluster = features[:size]
    begin = time.perf_counter()
    kernel = plain_kernel(cluster)
    middle = time.perf_counter()
    plain = plain_picks(kernel, count)
    its_loop, its = time.perf_counter() - middle, time.perf_counter() - begin
    kept = Kernel(Rows(cluster), 1.0)
    kept.means  # noqa: B018  (computed here, used by the picks)
    loops = []
    for _ in range(5):
        begin = time.perf_counter()
        ours = kept.greedy(count)
        loops.append(time.perf_counter() - begin)
    begin = time.perf_counter()
    again = greedy_mmd(cluster, count)
    mine = time.perf_counter() - begin
    same = ours.tolist() == plain == again.tolist()
    name = f"{count} picks of {size}"
    for part, its_time, my_time in (
        ("the loop alone", its_loop, float(np.median(loops))),
        (f"with the kernel, width {features.shape[1]}", its, mine),
    ):
        ratio = f"{its_time / my_time:,.0f}"
        rows.append([f"{name}: {part}", f"{its_time:.1f}", f"{my_time:.4f}", ratio, str(same)])
    random = np.random.default_rng(0)
    labels = random.integers(0, samples // PER_CLUSTER, samples)
    scores = random.uniform(0.5, 0.7, samples // PER_CLUSTER)
    begin = time.perf_counter()
    ours = pick(features[:samples], labels, scores, 0.2)
    mine = time.perf_counter() - begin
    begin = time.perf_counter()
    plain = plain_selection(features[:samples], labels, scores, 0.2)
    its = time.perf_counter() - begin
    same = ours[: len(plain)].tolist() == plain.tolist()
    name = f"density, budgets and picks of {samples} samples"
    rows.append([name, f"{its:.1f}", f"{mine:.2f}", f"{its / mine:.0f}", str(same)])
    table(rows)


@dataclass
class Machine:
    """What this machine can do: bytes and operations per second."""

    disk: float
    float64: float
    float32: float
    bfloat16: float

    @classmethod
    def measure(cls, path: Path, device: str) -> "Machine":
        """Reads a file that the page cache was asked to drop, and multiplies matrices."""
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            size = min(path.stat().st_size, 1 << 32)
            buffer = bytearray(1 << 24)
            begin, read = time.perf_counter(), 0
            while read < size and (count := file.readinto(buffer)):
                read += count
            disk = read / (time.perf_counter() - begin)
        rates = [product_rate(d, device) for d in (torch.float64, torch.float32, torch.bfloat16)]
        return cls(disk, *rates)


def product_rate(dtype: torch.dtype, device: str) -> float:
    """Operations per second of a large matrix product."""
    side = 3072 if device == "cpu" else 8192
    a = torch.ones(side, side, dtype=dtype, device=device)
    best = 0.0
    for _ in range(4):
        begin = time.perf_counter()
        float((a @ a)[0, 0])
        best = max(best, 2 * side**3 / (time.perf_counter() - begin))
    return best


def growth(
    sizes: list[int] | None = None,
    width: int = 20480,
    clustering: Literal["auto", "exact", "projected", "two_level"] = "auto",
    folder: str = "runs/benchmarks",
    memory: float = 2.0,
    device: str = "cpu",
) -> None:
    """Store to selection of 20 %, then a second fraction; each size in a process of its own.

    Args:
        sizes: samples (default: from 20,000 to the paper's 665,298).
        width: of the features.
        clustering: how to cluster.
        folder: for the features; needs 2 * samples * width bytes.
        memory: GiB, as the selector's.
        device: where to compute, `cpu` or `cuda`.
    """
    rows = [
        [
            "samples",
            "clusters",
            "clustering (s)",
            "transferability (s)",
            "density and order (s)",
            "picks (s)",
            "total (s)",
            "peak (GiB)",
            "second fraction (s)",
            "limit (s)",
            "total / limit",
        ]
    ]
    for size in sizes or [20_000, 80_000, 240_000, 665_298]:
        path = Path(folder) / f"features-{size}-{width}.npy"
        if not path.exists():
            write_features(path, size, width, size // PER_CLUSTER)
        machine = Machine.measure(path, device)
        print(f"machine: {json.dumps({k: f'{v:.3g}' for k, v in asdict(machine).items()})}")
        words = [sys.executable, __file__, "one", f"--path={path}", f"--clustering={clustering}"]
        words += [f"--memory={memory}", f"--device={device}"]
        result = json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)
        k, spent = size // PER_CLUSTER, result["stages"]
        least = limit(size, width, k, result, machine)
        total = sum(spent.values())
        rows.append(
            [
                f"{size:,}",
                f"{k:,} ({result['method']})",
                *(f"{seconds:.1f}" for seconds in spent.values()),
                f"{total:.0f}",
                f"{result['peak'] / GIB:.2f}",
                f"{result['second']:.1f}",
                f"{least:.0f}",
                f"{total / least:.1f}",
            ]
        )
        table(rows)
        path.unlink()


def limit(n: int, width: int, k: int, result: dict, machine: Machine) -> float:
    """Seconds that the bytes and operations would take at the rates measured, one by one.

    Reads: the store once to make it narrow, once for the centroids, once for the kernels; in full
    width, once an iteration and once for the kernels. Operations: K products a row and iteration
    (as if all rows were compared with all centroids), kernels, and cosines of centroids.
    """
    rounds, narrow = result["iterations"], result["method"] != "exact"
    compared = 2.0 * n * k * (512 if narrow else width) * rounds
    if result["method"] == "two_level":
        compared *= 2 / k**0.5
    reads = 3 if narrow else rounds + 1
    double = 2.0 * result["squares"] * width + 2.0 * k * k * width
    fast = max(machine.float32, machine.bfloat16)
    return reads * 2.0 * n * width / machine.disk + compared / fast + double / machine.float64


def one(path: str, clustering: str, memory: float, device: str) -> None:
    """One store to its selection; prints JSON."""
    messages: list[str] = []
    log = logging.getLogger("coincide_pl")
    log.setLevel(logging.DEBUG)
    log.addHandler(
        type("Keep", (logging.Handler,), {"emit": lambda _, r: messages.append(r.getMessage())})()
    )
    features = np.load(path, mmap_mode="r")
    fingerprint = f"{path} {Path(path).stat().st_mtime_ns}"
    with tempfile.TemporaryDirectory(dir=Path(path).parent) as folder:
        pool = Pool(
            range(len(features)),
            {"activations": features},
            {"signals": fingerprint},
            LAYERS,
            Cache(Path(folder), {}),
            device,
        )
        k = len(features) // PER_CLUSTER
        selector = Coincide(k, clustering=clustering, memory_gib=memory)  # type: ignore[arg-type]
        selection = selector.select(pool, len(features) // 5)
        stages = {}
        for line in messages:
            if match := re.fullmatch(r"(.*): ([\d.]+) s", line):
                stages[match[1]] = float(match[2])
        begin = time.perf_counter()
        selector.select(pool, len(features) // 10)
        second = time.perf_counter() - begin
    sizes = selection.clusters["size"].astype(float)
    print(
        json.dumps(
            {
                "stages": stages,
                "second": second,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
                "method": selection.figures["clustering"],
                "iterations": 1 + sum(line.startswith("iteration") for line in messages),
                "squares": float((sizes**2).sum()),
                "figures": selection.figures,
            }
        )
    )


def agreement(
    size: int = 20_000, width: int = 20480, folder: str = "runs/benchmarks", device: str = "cpu"
) -> None:
    """Each way to cluster against the exact one: adjusted Rand index, overlap of the selections.

    Args:
        size: samples.
        width: of the features.
        folder: for the features.
        device: where to compute.
    """
    path = Path(folder) / f"features-{size}-{width}.npy"
    if not path.exists():
        write_features(path, size, width, size // PER_CLUSTER)
    features = np.load(path, mmap_mode="r")
    ways = {
        "exact": {"clustering": "exact"},
        "exact, seed 1": {"clustering": "exact", "seed": 1},
        "exact, seed 2": {"clustering": "exact", "seed": 2},
        "projected, 256": {"clustering": "projected", "projection": 256},
        "projected, 512": {"clustering": "projected"},
        "projected, 1024": {"clustering": "projected", "projection": 1024},
        "two levels, 512": {"clustering": "two_level"},
        "exact, trained on half": {"clustering": "exact", "fit_rows": size // 2},
        "exact, trained on a fifth": {"clustering": "exact", "fit_rows": size // 5},
    }
    rows = [
        ["clustering", "time (s)", "mean cosine to centroid", "ARI with exact", "selection shared"]
    ]
    first: tuple[np.ndarray, Selection] | None = None
    for name, options in ways.items():
        with tempfile.TemporaryDirectory() as place:
            pool = Pool(
                range(size),
                {"activations": features},
                {"signals": "s"},
                LAYERS,
                Cache(Path(place), {}),
                device,
            )
            begin = time.perf_counter()
            selection = Coincide(size // PER_CLUSTER, **options).select(pool, size // 5)  # type: ignore[arg-type]
            spent = time.perf_counter() - begin
            (file,) = Path(place).glob("clusters-*.safetensors")
            labels, cosine = labels_of(file, features)
        first = first or (labels, selection)
        shared = len(np.intersect1d(selection.indices, first[1].indices)) / len(selection.indices)
        ari = adjusted_rand(first[0], labels)
        rows.append([name, f"{spent:.0f}", f"{cosine:.4f}", f"{ari:.3f}", f"{100 * shared:.1f} %"])
    table(rows)
    path.unlink()


def rounds(
    size: int = 12_000,
    width: int = 20480,
    clusters: int = 182,
    iterations: list[int] | None = None,
    spread: float = 0.5,
    folder: str = "runs/benchmarks",
) -> None:
    """Exact k-means in full width against Lloyd's algorithm in float32, in turns, in one run.

    Args:
        size: samples.
        width: of the features.
        clusters: how many.
        iterations: at most, for each row of the table (default: 10 and 30).
        spread: of samples around their components: 0.5 as in the other tables, 2 for samples that
            hardly form clusters.
        folder: for the features.
    """
    path = Path(folder) / f"features-{size}-{width}-{spread}.npy"
    if not path.exists():
        write_features(path, size, width, clusters, spread=spread)
    features = np.load(path, mmap_mode="r")
    rate = product_rate(torch.float32, "cpu")
    multiply, done = nearest.in_stretches, [0.0]

    def counted(rows: torch.Tensor, centroids: torch.Tensor) -> torch.Tensor:
        done[0] += 2.0 * len(rows) * centroids.numel()
        return multiply(rows, centroids)

    nearest.in_stretches = groups.in_stretches = counted
    heads = ("iterations", "plain (s)", "ours (s)", "plain / ours", "plain / ours, CPU seconds")
    rows = [[*heads, "same labels", "operations / plain's", "operations / rate (s)"]]
    for count in iterations or (10, 30):
        done[0] = 0.0
        begin, first = time.perf_counter(), time.process_time()
        plain = plain_lloyd(features, clusters, count)
        middle, second = time.perf_counter(), time.process_time()
        ours = spherical_kmeans(features, clusters, count, method="exact").labels
        its, mine = middle - begin, time.perf_counter() - middle
        cpu = (second - first) / (time.process_time() - second)
        same = f"{100 * (plain == ours).mean():.2f} %"
        share = done[0] / (2.0 * size * width * clusters * (count + 1))
        figures = (f"{its:.1f}", f"{mine:.1f}", f"{its / mine:.2f}", f"{cpu:.2f}", same)
        rows.append([str(count), *figures, f"{share:.3f}", f"{done[0] / rate:.1f}"])
    table(rows)
    path.unlink()


def plain_lloyd(features: np.ndarray, clusters: int, count: int) -> np.ndarray:
    """Spherical k-means from the same start, in float32, every product in every iteration."""
    x = torch.nn.functional.normalize(torch.from_numpy(np.array(features)).float(), dim=1)
    first = np.random.default_rng(1234).choice(len(x), clusters, replace=False)
    centroids = x[torch.from_numpy(first)].clone()
    for _ in range(count):
        labels = (x @ centroids.T).argmax(1)
        sums = torch.zeros_like(centroids).index_add_(0, labels, x)
        centroids = torch.nn.functional.normalize(sums, dim=1)
    return (x @ centroids.T).argmax(1).numpy()


def digests(size: int = 12_000, width: int = 2560) -> None:
    """A digest of the selection by each way to cluster, to compare between versions of Faiss.

    Args:
        size: samples.
        width: of the features.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "features.npy"
        write_features(path, size, width, size // PER_CLUSTER)
        features = np.load(path, mmap_mode="r")
        pool = Pool(range(size), {"activations": features}, {"signals": "s"}, LAYERS)
        rows = [["Faiss", "clustering", "digest of the selection"]]
        for way in METHODS:
            selection = Coincide(size // PER_CLUSTER, clustering=way).select(pool, size // 5)
            rows.append([faiss.__version__, way, selection.fingerprint])
    table(rows)


def labels_of(file: Path, features: np.ndarray) -> tuple[np.ndarray, float]:
    """Labels, and the mean inner product of rows with their centroids."""
    from safetensors.numpy import load_file

    labels, total = load_file(file)["labels"], 0.0
    (share,) = file.parent.glob("centroids.*")
    centroids = load_file(share)["centroids"]
    for i in range(0, len(labels), 1024):
        own = centroids[labels[i : i + 1024]]
        total += float((own * features[i : i + 1024]).sum())
    return labels, total / len(labels)


def adjusted_rand(a: np.ndarray, b: np.ndarray) -> float:
    """Adjusted Rand index (Hubert and Arabie, 1985) of two labelings."""
    pairs = np.unique(a * (int(b.max()) + 1) + b, return_counts=True)[1]
    together, first, second = (
        float((c * (c - 1.0) / 2).sum()) for c in (pairs, np.bincount(a), np.bincount(b))
    )
    expected = first * second / (len(a) * (len(a) - 1) / 2)
    return (together - expected) / ((first + second) / 2 - expected)


def table(rows: list[list[str]]) -> None:
    """Prints a table in Markdown."""
    for line in [rows[0], ["---"] * len(rows[0]), *rows[1:]]:
        print("| " + " | ".join(line) + " |")
    print(flush=True)


if __name__ == "__main__":
    auto_cli([picks, growth, agreement, rounds, digests, one], as_positional=False)
