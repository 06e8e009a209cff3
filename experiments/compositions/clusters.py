"""How well clusters of features match the known compositions, for other choices than the paper's.

Each line changes one thing: layers, halves, tanh, number of clusters, reference model, or the kind
of features. Purity is the share of samples that are of their cluster's most frequent composition;
NMI is the mutual information, normalized by the mean of the entropies.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jsonargparse import auto_cli
from rich.console import Console
from rich.progress import track

from coincide_pl.command.quiet import quiet
from coincide_pl.data.readers import LlavaJson
from coincide_pl.errors import SelectionError
from coincide_pl.files import write_text
from coincide_pl.reporting.tables import Table, spread
from coincide_pl.selection.arrays.kmeans import spherical_kmeans
from coincide_pl.signals import SignalsStore

Line = tuple[str, np.ndarray, int]
"""What is clustered: its name, features [n, D], and into how many."""


def clusters(
    data: str,
    signals: str,
    output: str,
    others: dict[str, str] | None = None,
    clip: str | None = None,
    num_clusters: int = 200,
    rows: int = 12000,
    seeds: int = 3,
    cache_dir: str = "~/.cache/coincide_pl",
) -> None:
    """Cluster some of the training samples by each kind of features, and write a table as `.md`.

    Args:
        data: LLaVA-format file of the training set.
        signals: directory of the reference model's signals `activations`, `last_token` and
            `mean_token`.
        output: path of the file to write, without its suffix.
        others: directories of signals of other models, or of other settings, by their names.
        clip: directory of the signals of a CLIP model.
        num_clusters: number of clusters, where it is not what is changed.
        rows: number of samples that are clustered, drawn at random.
        seeds: number of clusterings of each kind; means and deviations are over these.
        cache_dir: folder for the records in memory-mapped form.
    """
    quiet()
    records = LlavaJson(data, source_field="composition").records(cache_dir)
    chosen = np.random.default_rng(0).permutation(len(records))[:rows]
    names = np.array(records.sources)[np.sort(chosen)]
    parts = [name.split("-", 1) for name in names]
    truths = [names, [skill for _, skill in parts], [concept for concept, _ in parts]]
    codes = [np.unique(truth, return_inverse=True)[1] for truth in truths]
    stores = {"reference": signals, **(others or {})}
    lines = []
    todo = [*features(stores, clip, np.sort(chosen), num_clusters, records.fingerprint)]
    for name, values, k in track(todo, "clustering", disable=not sys.stdout.isatty()):
        try:
            found = [spherical_kmeans(values, k, seed=seed).labels for seed in range(seeds)]
        except SelectionError:  # too many rows are the same for as many clusters
            lines.append([name, *["collapsed"] * (2 * len(codes))])
            continue
        lines.append([name, *figures(codes, found)])
    chance = [np.random.default_rng(0).permutation(labels) for labels in found]
    lines.append(["chance (shuffled labels)", *figures(codes, chance)])
    header = [
        "features",
        *(f"{t} {m}" for t in ("composition", "skill", "concept") for m in FIGURES),
    ]
    table = Table("Clusters against compositions, %", header, lines)
    write_text(Path(f"{output}.md"), table.markdown())
    Console(width=160).print(table.rich())


FIGURES = ("NMI", "purity")


def features(
    stores: dict[str, str], clip: str | None, rows: np.ndarray, k: int, data: str
) -> Iterator[Line]:
    """Features that are compared, by name; the paper's choice first."""
    opened = {name: SignalsStore(path, data=data) for name, path in stores.items()}
    own = opened["reference"]
    own_layers = own.manifest.signals["activations"].arguments["layers"]
    depth = len(own_layers)
    whole = own["activations"][rows]
    yield f"reference, all layers, both, tanh, K = {k}", whole, k
    for half in ("visual", "text"):
        yield f"{half} half", part(whole, depth, range(depth), half), k
    for layer in range(depth):
        yield f"layer {own_layers[layer]}", part(whole, depth, [layer]), k
    every = range(1, depth, 2)
    named = " and ".join(str(own_layers[layer]) for layer in every)
    yield f"layers {named}", part(whole, depth, every), k
    for other in (57, 3 * k):
        yield f"K = {other}", whole, other
    for name, store in opened.items():
        if name != "reference":
            yield name, store["activations"][rows], k
    yield "last hidden state, last token", own["last_token"][rows], k
    yield "last hidden state, mean", own["mean_token"][rows], k
    if clip is not None:
        store = SignalsStore(clip, data=data)
        image, text = (store[name][rows] for name in ("clip_image", "clip_text"))
        yield "CLIP, image", image, k
        yield "CLIP, text", text, k
        yield "CLIP, both", np.concatenate([image, text], 1), k


def part(
    rows: np.ndarray, depth: int, layers: Sequence[int], half: str | None = None
) -> np.ndarray:
    """Columns of some layers, and of one half or both: [N, depth * 2 * H] to fewer columns."""
    halves = rows.reshape(len(rows), depth, 2, -1)[:, list(layers)]
    if half is not None:
        halves = halves[:, :, ("visual", "text").index(half)]
    return np.ascontiguousarray(halves.reshape(len(rows), -1))


def figures(codes: Sequence[np.ndarray], found: Sequence[np.ndarray]) -> list[str]:
    """Mean and deviation of NMI and purity for each truth, over the clusterings, in %."""
    cells = []
    for truth in codes:
        both = np.array([agreement(labels, truth) for labels in found])
        cells += [spread(column) for column in both.T]
    return cells


def agreement(labels: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """NMI and purity of a clustering, each in [0, 1]."""
    shares = np.zeros((labels.max() + 1, truth.max() + 1))
    np.add.at(shares, (labels, truth), 1 / len(labels))
    rows, columns = entropy(shares.sum(1)), entropy(shares.sum(0))
    mutual = rows + columns - entropy(shares)
    return mutual / ((rows + columns) / 2), float(shares.max(1).sum())


def entropy(shares: np.ndarray) -> float:
    shares = shares[shares > 0]
    return float(-(shares * np.log(shares)).sum())


if __name__ == "__main__":
    auto_cli(clusters, as_positional=False)
