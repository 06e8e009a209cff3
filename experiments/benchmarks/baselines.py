"""Time and peak memory of each baseline's selection, on generated signals.

Signals lie in memory-mapped files, as a store's do. Each selector runs in a process of its own;
its peak is what it takes beyond the process as it was before (Linux counts mapped pages as well,
which the system can take back at any time).
"""

import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import auto_cli

from coincide_pl.data.record import Record, Turn
from coincide_pl.reporting.tables import Table
from coincide_pl.selection import (
    EL2N,
    CLIPScore,
    D2Pruning,
    DataTailor,
    Dics,
    Distinct,
    HierarchicalKMeans,
    Magic,
    Perplexity,
    Pool,
    PreSel,
    Prism,
    Random,
    ScalSelect,
    Selector,
    SelfFilter,
    SelfSup,
    SemDeDup,
    VisNec,
    Xmas,
)
from coincide_pl.selection.selector import name_of

BLOCK = 8192
GROUPS = 2000
"""Concepts that the samples are about."""
HIDDEN = 0
VECTORS = {
    "last_token": HIDDEN,
    "mean_token": HIDDEN,
    "instruction": HIDDEN,
    "mean_image_token": HIDDEN,
    "attended_image_token": HIDDEN,
    "last_token_state": HIDDEN,
    "clip_image": 768,
    "clip_text": 768,
    "image_features": 768,
    "token_spectrum": 2,
    **{f"cross_attention-{checkpoint}": 5 for checkpoint in range(6)},
}
"""Widths of CLIP ViT-L/14's embeddings and of DINOv2-base's; singular values of six checkpoints;
`HIDDEN` for a model's hidden states."""
SCORES = (
    *("el2n", "nll", "margin", "clip_score", "difficulty", "nll_without_image"),
    *("nll_without_question", "visual_consistency", "response_consistency", "bridging_relevance"),
)
NEURONS = (4, 3, 5632)
"""Layers, neurons of each that are kept, and neurons of each of a TinyLLaVA-2B."""


def selectors(num_samples: int) -> dict[str, Selector]:
    """Every baseline, with about 66 samples a cluster."""
    clusters = max(1, num_samples // 66)
    return {
        "Random": Random(),
        "CLIPScore": CLIPScore(),
        "EL2N": EL2N(),
        "Perplexity": Perplexity(),
        "SemDeDup": SemDeDup(num_clusters=clusters),
        "SelfSup": SelfSup(num_clusters=min(1000, clusters)),
        "D2Pruning": D2Pruning(),
        "SelfFilter": SelfFilter(),
        "Prism": Prism(),
        "ScalSelect": ScalSelect(),
        "HierarchicalKMeans": HierarchicalKMeans(
            [max(1, clusters // each) for each in (1, 10, 100)], "mean_token"
        ),
        "DataTailor": DataTailor(),
        "Distinct": Distinct("mean_token"),
        "VisNec": VisNec(),
        "Dics": Dics(),
        "Magic": Magic(),
        "PreSel": PreSel(),
        "Xmas": Xmas(num_clusters=min(1000, clusters)),
    }


def generate(
    folder: Path, num_samples: int, names: set[str], hidden_size: int, noise: float
) -> None:
    """Writes the named signals' arrays, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    group = random.integers(0, GROUPS, num_samples)
    for name in SCORES:
        np.save(folder / f"{name}.npy", random.random(num_samples, np.float32))
    layers, top, neurons = NEURONS
    active = np.minimum(random.exponential(20, (num_samples, layers, top)), neurons - 1)
    np.save(folder / "skill_neurons.npy", np.floor(active).astype(np.float32))
    for name, told in VECTORS.items():
        if name not in names:
            continue
        width = told or hidden_size
        path = folder / f"{name}.npy"
        if path.exists():
            continue
        latent = random.normal(size=(64, width)).astype(np.float32)
        centers = random.normal(size=(GROUPS, 64)).astype(np.float32)
        aside = folder / f".{name}.npy"
        array = np.lib.format.open_memmap(aside, "w+", np.float16, (num_samples, width))
        for start in range(0, num_samples, BLOCK):
            part = slice(start, start + BLOCK)
            near = centers[group[part]]
            near = near + 0.5 * random.normal(size=near.shape).astype(np.float32)
            rows = near @ latent  # embeddings of few degrees of freedom, as real ones are
            if noise:
                spread = noise * 64**0.5
                rows += spread * random.standard_normal(rows.shape, np.float32)
            array[part] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        array.flush()
        aside.rename(path)


def baselines(
    folder: str,
    num_samples: list[int] | None = None,
    fraction: float = 0.2,
    only: list[str] | None = None,
    hidden_size: int = 2048,
    noise: float = 0.0,
    sources: int = 12,
    output: str | None = None,
) -> None:
    """Measures and prints a table.

    Args:
        folder: for the generated signals, 25 KB a sample for all selectors; a folder for each
            `hidden_size` and `noise`.
        num_samples: sizes of the pool (default: 100,000 and LLaVA-1.5's 665,298).
        fraction: to choose.
        only: names of selectors (default: all).
        hidden_size: width of hidden states; a TinyLLaVA-2B's is 2048, a LLaVA-1.5-7B's 4096.
        noise: standard deviation of what vectors have in all columns, beside the 64 directions in
            which they vary by 1 each.
        sources: number of sources of the samples; LLaVA-1.5's mix has twelve.
        output: Markdown file to write as well.
    """
    header = [
        *("selector", "samples", "seconds", "of a processor"),
        *("peak memory (MB)", "memory-mapped signals (MB)"),
    ]
    lines = []
    for size in num_samples or [100_000, 665_298]:
        place = Path(folder) / str(size)
        known = selectors(size)
        read = {one for name in only or known for one in arrays(known[name])}
        generate(place, size, read, hidden_size, noise)
        for name in only or known:
            words = [sys.executable, __file__, "--one", name, str(place)]
            words += [str(size), str(fraction), str(sources)]
            printed = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            seconds, used, peak, mapped = json.loads(printed.splitlines()[-1])
            figures = [f"{seconds:.1f}", f"{used:.1f}", f"{peak:.0f}", f"{mapped:.0f}"]
            lines.append([name, f"{size:,}", *figures])
            print(" | ".join(lines[-1]), flush=True)
    text = Table("Baselines", header, lines).markdown()
    print(text, end="")
    if output:
        Path(output).write_text(text)


def arrays(selector: Selector) -> list[str]:
    """Names of the files that a selector reads."""
    several = [one for one in VECTORS if one.partition("-")[0] in map(name_of, selector.several)]
    return [*map(name_of, selector.needs), *several]


class Sources(Sequence[Record]):
    """Records of one turn each, of several sources, one after the other."""

    def __init__(self, count: int, sources: int) -> None:
        """Sets how many there are."""
        self.count, self.num_sources = count, sources

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: Any) -> Any:
        if row >= self.count:
            raise IndexError(row)
        source = f"{self.num_sources * row // self.count}"
        return Record(str(row), (), (Turn("assistant", ""),), source)


def one(name: str, place: str, size: str, fraction: str, sources: str) -> None:
    """Runs one selector: seconds, those of a processor, peak MB beyond the start, MB of signals."""
    selector = selectors(int(size))[name]
    signals = {
        name: np.load(Path(place) / f"{name}.npy", mmap_mode="r") for name in arrays(selector)
    }
    several = {
        name: [one for file, one in signals.items() if file.startswith(f"{name}-")]
        for name in map(name_of, selector.several)
    }
    pool = Pool(Sources(int(size), int(sources)), signals, several=several)
    count = int(float(fraction) * int(size))
    before, begin, idle = peak_megabytes(), time.perf_counter(), time.process_time()
    selection = selector.select(pool, count)
    seconds, used = time.perf_counter() - begin, time.process_time() - idle
    assert len(np.unique(selection.indices)) == count
    mapped = sum(signal.nbytes for signal in signals.values()) / 1e6
    print(json.dumps([seconds, used, peak_megabytes() - before, mapped]))


def peak_megabytes() -> float:
    """The largest resident size of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(*sys.argv[2:])
    else:
        auto_cli(baselines, as_positional=False)
