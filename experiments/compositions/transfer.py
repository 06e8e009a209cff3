"""Measured transferability against what stands in for it, the similarity of centroids.

From one start, the model is finetuned on some samples of one cluster; how far that lowers the loss
on the other clusters is what the cluster transfers: T_ij = 1 - loss_j(after i) / loss_j(before),
and T_i is its mean over j ≠ i. Each proxy S is correlated with T over the clusters.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from clusters import part
from jsonargparse import auto_cli
from rich.console import Console
from rich.progress import track
from torch.nn import functional as F

from coincide_pl.command.quiet import quiet
from coincide_pl.data.collation import Batch, EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.readers import LlavaJson
from coincide_pl.files import write_text
from coincide_pl.models import TargetModule
from coincide_pl.reporting.tables import Table
from coincide_pl.selection import transferability
from coincide_pl.selection.arrays.kmeans import Clusters, spherical_kmeans
from coincide_pl.signals import SignalsStore

PROXIES: dict[str, dict[str, Any]] = {
    "official: text half, up to 0.9": {},
    "paper: plain mean, both halves": {"modality": "both", "exclude_above": None},
    "both halves, up to 0.9": {"modality": "both"},
    "text half, plain mean": {"exclude_above": None},
    "visual half, up to 0.9": {"modality": "visual"},
    "visual half, plain mean": {"modality": "visual", "exclude_above": None},
}
HALVES = ("text", "visual", "both")


def transfer(
    data: str,
    signals: str,
    pretrained: str,
    output: str,
    num_clusters: int = 100,
    samples: int = 64,
    probes: int = 16,
    steps: int = 8,
    learning_rate: float = 5e-4,
    seed: int = 0,
    cache_dir: str = "~/.cache/coincide_pl",
) -> None:
    """Measure the transfer between all pairs of clusters; write losses (`.npz`), `.md`, `.png`.

    Args:
        data: LLaVA-format file of the training set.
        signals: directory of the reference model's activations.
        pretrained: checkpoint that the target starts from.
        output: path of the files to write, without their suffix.
        num_clusters: number of clusters to make; those that are too small are left out.
        samples: number of samples of a cluster that are trained on, all in each step.
        probes: number of others of a cluster, on which the loss is measured.
        steps: of AdamW.
        learning_rate: of AdamW, constant.
        seed: of clustering and of the samples.
        cache_dir: folder for the records in memory-mapped form.
    """
    quiet()
    records = LlavaJson(data, source_field="composition").records(cache_dir)
    store = SignalsStore(signals, data=records.fingerprint)
    found = spherical_kmeans(store["activations"], num_clusters, seed=seed)
    depth = len(store.manifest.signals["activations"].arguments["layers"])
    kept = np.flatnonzero(np.bincount(found.labels, minlength=num_clusters) >= samples + probes)
    losses = Path(f"{output}.npz")
    if not losses.is_file():
        module = TargetModule(pretrained)
        module.configure_model()
        encoded = EncodedBatches(records, Encoder(module.processor, 256))
        random = np.random.default_rng(seed)
        rows = [random.permutation(np.flatnonzero(found.labels == cluster)) for cluster in kept]
        own = [encoded[one[:samples].tolist()] for one in rows]
        asked = encoded[np.concatenate([one[samples : samples + probes] for one in rows]).tolist()]
        before, after = measure(module, own, asked, probes, steps, learning_rate)
        losses.parent.mkdir(parents=True, exist_ok=True)
        np.savez(losses, before=before, after=after, clusters=kept)
    with np.load(losses) as held:
        before, after = held["before"], held["after"]
    transfer = 1 - after / before
    np.fill_diagonal(transfer, 0)
    measured = transfer.sum(1) / (len(kept) - 1)
    lines = []
    for name, options in PROXIES.items():
        proxy = proxies(found, depth, options)[kept]
        lines.append([name, *(interval(measured, proxy, ranks) for ranks in (False, True))])
    header = ["proxy", "Pearson [95 %]", "Spearman [95 %]"]
    table = Table(f"Proxy against measured transfer, {len(kept)} clusters", header, lines)
    pairs = Table(
        "Cosine of two centroids against transfer from one to the other",
        ["halves", *header[1:]],
        [[half, *of_pairs(transfer, found.centroids[kept], half, depth)] for half in HALVES],
    )
    write_text(Path(f"{output}.md"), table.markdown() + "\n" + pairs.markdown())
    draw(measured, proxies(found, depth, {})[kept], Path(f"{output}.png"))
    console = Console(width=120)
    console.print(table.rich())
    console.print(pairs.rich())


def measure(
    module: TargetModule,
    own: list[Batch],
    asked: Batch,
    probes: int,
    steps: int,
    learning_rate: float,
) -> tuple[np.ndarray, np.ndarray]:
    """Loss on each cluster's probes before, [K], and after finetuning on each cluster, [K, K]."""
    model: Any = module.model
    start = {name: value.clone() for name, value in model.state_dict().items()}
    before, after = losses_on(module, asked, probes), []
    for batch in track(own, "measuring", disable=not sys.stdout.isatty()):
        model.load_state_dict(start)
        optimizer = torch.optim.AdamW(model.parameters(), learning_rate, weight_decay=0.0)
        for _ in range(steps):
            logits, labels = module(batch)
            F.cross_entropy(logits, labels).backward()
            optimizer.step()
            optimizer.zero_grad()
        after.append(losses_on(module, asked, probes))
    return before, np.stack(after)


@torch.no_grad()
def losses_on(module: TargetModule, batch: Batch, probes: int) -> np.ndarray:
    """Mean loss of an answer token over each run of `probes` samples."""
    logits, labels = module(batch)
    tokens = F.cross_entropy(logits, labels, reduction="none")
    sample = (batch.labels[:, 1:] != -100).nonzero()[:, 0]
    sums, counts = (
        torch.zeros(len(batch.rows) // probes).index_add(0, sample // probes, values)
        for values in (tokens, torch.ones_like(tokens))
    )
    return (sums / counts).double().numpy()


def proxies(found: Clusters, depth: int, options: dict[str, Any]) -> np.ndarray:
    return np.asarray(transferability(found.centroids, depth, **options))


def interval(a: np.ndarray, b: np.ndarray, ranks: bool) -> str:
    """Correlation over clusters, [K] both, with its bootstrap interval."""
    if np.ptp(b) == 0:
        return "the same for all"
    if ranks:
        a, b = (one.argsort().argsort().astype(float) for one in (a, b))
    return with_ends(
        np.corrcoef(a, b)[0, 1],
        [np.corrcoef(a[rows], b[rows])[0, 1] for rows in resampled(len(a))],
    )


def of_pairs(transfer: np.ndarray, centroids: np.ndarray, half: str, depth: int) -> list[str]:
    """Pearson's and Spearman's correlation of cosine and transfer over all pairs i ≠ j.

    The bootstrap draws clusters, with all pairs among those drawn.
    """
    rows = part(centroids, depth, range(depth), None if half == "both" else half)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    cosines, k = rows @ rows.T, len(rows)
    cells = []
    for ranks in (False, True):
        a, b = transfer, cosines
        if ranks:
            a, b = (one.ravel().argsort().argsort().reshape(k, k) for one in (a, b))

        def correlation(rows: np.ndarray, a: np.ndarray = a, b: np.ndarray = b) -> float:
            here, apart = np.ix_(rows, rows), rows[:, None] != rows
            return float(np.corrcoef(a[here][apart], b[here][apart])[0, 1])

        drawn = [correlation(rows) for rows in resampled(k, 1000)]
        cells.append(with_ends(correlation(np.arange(k)), drawn))
    return cells


def resampled(count: int, resamples: int = 5000) -> np.ndarray:
    return np.random.default_rng(0).integers(0, count, (resamples, count))


def with_ends(value: float, drawn: Sequence[float]) -> str:
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{value:+.2f} [{low:+.2f}, {high:+.2f}]"


def draw(measured: np.ndarray, proxy: np.ndarray, path: Path) -> None:
    """Draw a point for each cluster."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.scatter(proxy, measured, s=14, color="#0072b2")
    axes.set_xlabel("transferability S, by the official rule")
    axes.set_ylabel("measured: mean relative drop in loss elsewhere")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    auto_cli(transfer, as_positional=False)
