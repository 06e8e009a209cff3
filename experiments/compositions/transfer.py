"""Measured transferability against what stands in for it, the similarity of centroids.

From one start, the model is finetuned on some samples of one cluster; how far that lowers the loss
on the other clusters is what the cluster transfers: T_ij = 1 - loss_j(after i) / loss_j(before),
and T_i is its mean over j ≠ i. Each proxy S is correlated with T over the clusters.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jsonargparse import auto_cli
from rich.console import Console
from rich.progress import track
from torch.nn import functional as F

from coincide_pl.cli import quiet
from coincide_pl.data.collation import Batch, EncodedBatches
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.readers import LlavaJson
from coincide_pl.data.readers.reader import write_text
from coincide_pl.models import TargetModule
from coincide_pl.reporting.tables import Table
from coincide_pl.selection import transferability
from coincide_pl.selection.clustering import Clusters, spherical_kmeans
from coincide_pl.signals import SignalsStore

PROXIES: dict[str, dict[str, Any]] = {
    "official: text half, up to 0.9": {},
    "paper: plain mean, both halves": {"modality": "both", "exclude_above": None},
    "both halves, up to 0.9": {"modality": "both"},
    "text half, plain mean": {"exclude_above": None},
    "visual half, up to 0.9": {"modality": "visual"},
    "visual half, plain mean": {"modality": "visual", "exclude_above": None},
}


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
    """Measures all pairs of clusters; writes `.npz` with the losses, `.md`, `.png`.

    Args:
        data: the training set.
        signals: store of the reference model's activations.
        pretrained: the start of the target.
        output: path of what is written, without a suffix.
        num_clusters: K of this measurement; clusters that are too small are left out.
        samples: of a cluster that are trained on, all in each step.
        probes: of a cluster, others than these, on which loss is measured.
        steps: of AdamW.
        learning_rate: of AdamW, constant.
        seed: of clustering and of the samples.
        cache_dir: folder for the records in memory-mapped form.
    """
    quiet()
    records = LlavaJson(data, source_field="composition").records(cache_dir)
    store = SignalsStore(signals, data=records.fingerprint)
    found = spherical_kmeans(store["activations"], num_clusters, seed=seed)
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
    told = 1 - after / before
    np.fill_diagonal(told, 0)
    measured = told.sum(1) / (len(kept) - 1)
    lines = []
    for name, options in PROXIES.items():
        proxy = proxies(found, len(store.manifest.layers), options)[kept]
        lines.append([name, *(interval(measured, proxy, ranks) for ranks in (False, True))])
    header = ["proxy", "Pearson [95 %]", "Spearman [95 %]"]
    table = Table(f"Proxy against measured transfer, {len(kept)} clusters", header, lines)
    write_text(Path(f"{output}.md"), table.markdown())
    draw(measured, proxies(found, len(store.manifest.layers), {})[kept], Path(f"{output}.png"))
    Console(width=120).print(table.rich())


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


def interval(a: np.ndarray, b: np.ndarray, ranks: bool, resamples: int = 5000) -> str:
    """Correlation over clusters, with its bootstrap interval."""
    if np.ptp(b) == 0:
        return "the same for all"
    if ranks:
        a, b = (one.argsort().argsort().astype(float) for one in (a, b))
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(a), (resamples, len(a)))
    told = [np.corrcoef(a[rows], b[rows])[0, 1] for rows in drawn]
    low, high = np.quantile(told, [0.025, 0.975])
    return f"{np.corrcoef(a, b)[0, 1]:+.2f} [{low:+.2f}, {high:+.2f}]"


def draw(measured: np.ndarray, proxy: np.ndarray, path: Path) -> None:
    """A point for each cluster."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 4), layout="constrained")
    axes.scatter(proxy, measured, s=14, color="#0072b2")
    axes.set_xlabel("transferability S, by the official rule")
    axes.set_ylabel("measured: mean relative drop in loss elsewhere")
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    auto_cli(transfer, as_positional=False)
