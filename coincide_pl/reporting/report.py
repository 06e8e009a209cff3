"""The verb `report`: one HTML file that shows a selection, what it was chosen from, and how."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from contextlib import chdir
from dataclasses import dataclass
from pathlib import Path

import jinja2
import numpy as np
import numpy.typing as npt

from coincide_pl.data.records import Records
from coincide_pl.files import write_text
from coincide_pl.reporting.bootstrap import Floats
from coincide_pl.reporting.charts import Chart, histogram, plane
from coincide_pl.reporting.config import stores
from coincide_pl.reporting.escape import terminal
from coincide_pl.reporting.origin import Origin
from coincide_pl.reporting.samples import choose_samples, num_clusters
from coincide_pl.selection import Selection

SOURCES = 40
"""Number of sources with a line of their own."""
Columns = dict[str, list[float]]
"""Figures of the clusters by name, each [K]."""


def report(
    selection: str | Selection,
    output: str | None = None,
    run_config: str | None = None,
    signals: str | None = None,
) -> None:
    """Write an HTML file that shows a selection; it opens without a network.

    Args:
        selection: the selection file, the run's directory that it lies in, or a selection that was
            read from its file.
        output: HTML file to write (default: `report.html` beside the selection).
        run_config: config of the run, for the data (default: `fit.yaml` or `select.yaml` beside the
            selection).
        signals: directory of the signals, where the clusters' centroids are kept, for the map
            (default: the config's).

    Raises:
        CoincideError: the selection, config or data can't be read, or do not belong together.
    """
    origin = Origin.of(selection, run_config)
    directories = stores(origin.config, origin.folder)
    centroids = find_centroids([Path(signals)] if signals else directories, origin.selection)
    target = Path(output) if output else origin.place.with_name("report.html")
    with chdir(origin.folder):
        page = render(origin.selection, origin.records, centroids)
    write_text(target, [page])
    terminal().print(f"wrote {target}", soft_wrap=True)


def render(chosen: Selection, records: Records, centroids: Floats | None) -> str:
    """The HTML of a report.

    Args:
        chosen: the selection.
        records: records that it was made from.
        centroids: centroids of its clusters for the map, float32 [K, D]; None leaves the map out.
    """
    picked = np.zeros(len(records), bool)
    picked[chosen.indices] = True
    labels = np.zeros(len(records), np.int32) if chosen.labels is None else chosen.labels
    clusters = cluster_columns(chosen, picked, labels)
    charts = distributions(clusters) if chosen.labels is not None else []
    if centroids is not None and len(centroids) > 2:
        charts.append(
            plane(
                project(centroids),
                clusters["selected"],
                clusters.get("S"),
                "Map of the clusters",
                "transferability S",
            )
        )
    lines = coverage(records.sources, picked)
    samples, images = choose_samples(chosen, records, picked, labels)
    data = {
        "clusters": clusters,
        "samples": [[sample.cells() for sample in own] for own in samples],
        "images": images,
    }
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("coincide_pl.reporting"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    name = chosen.selector["class_path"].rpartition(".")[2]
    return environment.get_template("report.html.j2").render(
        title=f"{name}: {len(chosen.indices):,} of {len(records):,} samples",
        facts=facts(chosen, records),
        coverage=lines,
        largest=max(max(line.before_share, line.after_share) for line in lines),
        charts=charts,
        symbols=[key for key in ("S", "D") if key in clusters],
        clustered=chosen.labels is not None,
        num_samples=sum(map(len, samples)),
        data=script_json(data),
    )


def facts(chosen: Selection, records: Records) -> list[tuple[str, list[tuple[str, str]]]]:
    """Facts that a selection file holds about itself, in groups of names and values."""
    groups = {
        "Selector": {"class": chosen.selector["class_path"], **chosen.selector["init_args"]},
        "Clustering": chosen.figures,
        "Made from": {
            **chosen.made_from,
            "records": records.notes.starts[0][0] if records.notes.starts else str(records.path),
            "selection": chosen.fingerprint,
        },
    }
    return [
        (name, [(key.replace("_", " "), plain(value)) for key, value in group.items()])
        for name, group in groups.items()
        if group
    ]


def plain(value: object) -> str:
    """A value as text; a float with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def cluster_columns(
    chosen: Selection, picked: npt.NDArray[np.bool_], labels: npt.NDArray[np.int32]
) -> Columns:
    """Size of each cluster, the number selected of it, and what else is known of it."""
    num = num_clusters(chosen, labels)
    columns: Columns = {
        "size": np.bincount(labels, minlength=num).tolist(),
        "selected": np.bincount(labels[picked], minlength=num).tolist(),
    }
    for name, symbol in (("transferability", "S"), ("density", "D")):
        if name in chosen.clusters:
            columns[symbol] = [float(f"{x:.4g}") for x in chosen.clusters[name].tolist()]
    return columns


@dataclass(frozen=True)
class Source:
    """A source: number of samples before and after selecting, and their shares of all, in %."""

    name: str
    before: int
    after: int
    before_share: float
    after_share: float


def coverage(sources: Sequence[str], picked: npt.NDArray[np.bool_]) -> list[Source]:
    """Sources from the largest to the smallest; those beyond `SOURCES` of them as one."""
    before = Counter(sources)
    after = Counter(name for name, own in zip(sources, picked, strict=True) if own)
    counts = [(name, count, after[name]) for name, count in before.most_common()]
    if len(counts) > SOURCES:
        rest = counts[SOURCES - 1 :]
        others = (f"{len(rest)} others", sum(x[1] for x in rest), sum(x[2] for x in rest))
        counts = [*counts[: SOURCES - 1], others]
    num_all, num_picked = len(sources), max(1, int(picked.sum()))
    return [Source(*x, 100 * x[1] / num_all, 100 * x[2] / num_picked) for x in counts]


def distributions(clusters: Columns) -> list[Chart]:
    """Histograms of the clusters' sizes, budgets, and what else is known of them."""
    size, selected = np.array(clusters["size"]), np.array(clusters["selected"])
    share = selected[size > 0] / size[size > 0]
    charts = [
        histogram(size, "Size of the clusters", "samples", "clusters"),
        histogram(100 * share, "Budgets", "selected (% of a cluster)", "clusters"),
    ]
    names = {"S": ("Transferability S", "S"), "D": ("Density D", "D")}
    charts += [
        histogram(np.array(clusters[key])[size > 0], title, axis, "clusters")
        for key, (title, axis) in names.items()
        if key in clusters
    ]
    return charts


def project(centroids: Floats) -> Floats:
    """First two principal components of centroids float32 [K, D], as float64 [K, 2]."""
    import torch

    torch.manual_seed(0)
    left, scale, _ = torch.pca_lowrank(torch.from_numpy(centroids), q=min(8, *centroids.shape))
    return (left[:, :2] * scale[:2]).double().numpy()


def script_json(data: object) -> str:
    """JSON that can stand in a script element, whatever text it holds."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode("utf-8", "replace").decode()


def find_centroids(stores: Sequence[Path], chosen: Selection) -> Floats | None:
    """Centroids float32 [K, D] that a selection left beside its signals, if they are there."""
    from safetensors import SafetensorError, safe_open

    if chosen.labels is None:
        return None
    for store in stores:
        for path in sorted(Path(store, "selection").glob("clusters-*.safetensors")):
            try:
                with safe_open(path, "np") as file:
                    if not np.array_equal(file.get_tensor("labels"), chosen.labels):
                        continue
                    held = "centroids" in set(file.keys())  # as earlier versions kept them
                    parts = [file.get_tensor("centroids")] if held else shares_of(path)
                centroids = np.concatenate(parts).astype(np.float32)
                if centroids.ndim == 2 and len(centroids) == num_clusters(chosen, chosen.labels):
                    return np.nan_to_num(centroids)
            except (SafetensorError, OSError, TypeError, ValueError):
                continue
    return None


def shares_of(clusters: Path) -> list[Floats]:
    """The centroids beside a file of clusters, each process's share of them, in order."""
    from safetensors.numpy import load_file

    key = clusters.name.removeprefix("clusters-")
    found: dict[int, Path] = {}
    for path in clusters.parent.glob(f"centroids.*-{key}"):
        found[int(path.name.removeprefix("centroids.").split("-")[0])] = path
    parts, at = [], 0
    while at in found:
        parts.append(load_file(found[at])["centroids"])
        at += max(1, len(parts[-1]))
    return parts
