"""One HTML file to look at a selection: what was chosen, from what, and how."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
from PIL import Image
from rich.console import Console

from coincide_pl.data.images import open_image
from coincide_pl.data.records import IMAGE_MARK, Record, Records
from coincide_pl.errors import CoincideError
from coincide_pl.files import write_text
from coincide_pl.reporting.charts import Chart, histogram, plane
from coincide_pl.reporting.origin import Origin
from coincide_pl.selection import Selection

TEXT_BYTES, IMAGE_BYTES = 7_000_000, 15_000_000
"""How much of samples' text and thumbnails a report holds at most."""
PER_CLUSTER = 24
"""Samples of a cluster that are shown at most."""
SOURCES = 40
"""Sources with a line of their own."""


def report(
    selection: str,
    output: str | None = None,
    run_config: str | None = None,
    signals: str | None = None,
) -> None:
    """Write an HTML file that shows a selection; it opens without a network.

    Args:
        selection: the selection file, or the run's directory that it lies in.
        output: the HTML file (default: `report.html` beside the selection).
        run_config: config of the run, for the data (default: `fit.yaml` or `select.yaml` beside the
            selection).
        signals: directory of the signals, where the clusters' centroids are kept, for the map
            (default: the config's).

    Raises:
        CoincideError: the selection, config or data can't be read, or do not belong together.
    """
    origin = Origin.of(selection, run_config)
    place, chosen, records = origin.place, origin.selection, origin.records
    stores = signals or origin.settings["data"]["init_args"].get("signals") or []
    centroids = find_centroids([stores] if isinstance(stores, str) else stores, chosen)
    target = Path(output) if output else place.with_name("report.html")
    write_text(target, [render(chosen, records, centroids)])
    Console().print(f"wrote {target}", soft_wrap=True)


def render(chosen: Selection, records: Records, centroids: np.ndarray | None) -> str:
    """The page.

    Args:
        chosen: the selection.
        records: that it was made from.
        centroids: float32 [K, D] of its clusters, for the map; None leaves it out.
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
    data = {"clusters": clusters, "samples": samples, "images": images}
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
    """What the selection says of itself, in groups of names and values."""
    told = {
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
        for name, group in told.items()
        if group
    ]


def plain(value: Any) -> str:
    """A value as text; floats to four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def cluster_columns(
    chosen: Selection, picked: np.ndarray, labels: np.ndarray
) -> dict[str, list[Any]]:
    """Size, number selected, and what else is known of each cluster; lists [K]."""
    num = int(labels.max(initial=0)) + 1
    num = max(num, *(len(column) for column in chosen.clusters.values()), 1)
    columns: dict[str, list[Any]] = {
        "size": np.bincount(labels, minlength=num).tolist(),
        "selected": np.bincount(labels[picked], minlength=num).tolist(),
    }
    for name, symbol in (("transferability", "S"), ("density", "D")):
        if name in chosen.clusters:
            columns[symbol] = [float(f"{x:.4g}") for x in chosen.clusters[name].tolist()]
    return columns


@dataclass(frozen=True)
class Source:
    """Samples of a source before and after, and their shares of all, in %."""

    name: str
    before: int
    after: int
    before_share: float
    after_share: float


def coverage(sources: Sequence[str | None], picked: np.ndarray) -> list[Source]:
    """Sources from the largest to the smallest; beyond `SOURCES` of them, the rest as one."""
    named = [source or "no source" for source in sources]
    before = Counter(named)
    after = Counter(name for name, own in zip(named, picked, strict=True) if own)
    counts = [(name, count, after[name]) for name, count in before.most_common()]
    if len(counts) > SOURCES:
        rest = counts[SOURCES - 1 :]
        others = (f"{len(rest)} others", sum(x[1] for x in rest), sum(x[2] for x in rest))
        counts = [*counts[: SOURCES - 1], others]
    num_all, num_picked = len(named), max(1, int(picked.sum()))
    return [Source(*x, 100 * x[1] / num_all, 100 * x[2] / num_picked) for x in counts]


def distributions(clusters: dict[str, list[Any]]) -> list[Chart]:
    """Histograms over the clusters."""
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


def project(centroids: np.ndarray) -> np.ndarray:
    """First two principal components of rows float32 [K, D]; float64 [K, 2]."""
    torch.manual_seed(0)
    left, scale, _ = torch.pca_lowrank(torch.from_numpy(centroids), q=min(8, *centroids.shape))
    return (left[:, :2] * scale[:2]).double().numpy()


def choose_samples(
    chosen: Selection, records: Records, picked: np.ndarray, labels: np.ndarray
) -> tuple[list[list[list[Any]]], list[str]]:
    """Samples of each cluster to show, half of them picked, and thumbnails.

    Returns:
        For each cluster, its samples as [row, id, picked, turns, number of its image or -1], turns
        as [role, text]; and the images as data URIs.
    """
    groups = list(shown(chosen, picked, labels))
    each = TEXT_BYTES // max(1, sum(map(len, groups)))
    opened: list[tuple[int, int, Record]] = []
    samples: list[list[list[Any]]] = []
    for number, rows in enumerate(groups):
        own: list[list[Any]] = []
        for row in rows:
            record = records[row]
            turns = [[turn.role, text] for turn, text in cut(record, each)]
            own.append([row, record.id[:80], int(picked[row]), turns, -1])
            if record.images:
                opened.append((len(own) - 1, number, record))
        samples.append(own)
    opened.sort(key=lambda one: one[:2])  # the first of every cluster, then the second, ...
    side = 112 if len(groups) <= 1000 else 72
    images: list[str] = []
    known: dict[str, int] = {}
    spent = 0
    for at, number, record in opened:
        path = record.images[0]
        if path not in known:
            if spent > IMAGE_BYTES:
                continue
            uri = thumbnail(records.image_root, path, side)
            if uri is None:
                continue
            spent += len(uri)
            known[path] = len(images)
            images.append(uri)
        samples[number][at][4] = known[path]
    return samples, images


def shown(chosen: Selection, picked: np.ndarray, labels: np.ndarray) -> Iterator[list[int]]:
    """Of each cluster, rows to show: the first picks, then others spread over the records."""
    num = int(labels.max(initial=0)) + 1
    num = max(num, *(len(column) for column in chosen.clusters.values()), 1)
    most = max(2, min(PER_CLUSTER if num > 1 else 200, 40_000 // num))
    ordered = chosen.indices[np.argsort(labels[chosen.indices], kind="stable")]
    taken = np.split(ordered, np.cumsum(np.bincount(labels[ordered], minlength=num))[:-1])
    rows = np.argsort(labels, kind="stable")
    members = np.split(rows, np.cumsum(np.bincount(labels, minlength=num))[:-1])
    for own, first in zip(members, taken, strict=True):
        others = own[~picked[own]]
        num_first = max(most // 2, most - len(others))
        num_others = most - min(num_first, len(first))
        step = max(1, len(others) // max(1, num_others))
        yield [*first[:num_first].tolist(), *others[::step][:num_others].tolist()]


def cut(record: Record, most: int) -> Iterator[tuple[Any, str]]:
    """Turns with their texts, up to so many characters of a sample in all."""
    left = max(most, 40)
    for turn in record.turns:
        if left <= 0:
            return
        text = turn.text.replace(IMAGE_MARK, "").strip()
        yield turn, text if len(text) <= left else text[:left] + "…"
        left -= len(text)


def thumbnail(root: Path, path: str, side: int) -> str | None:
    """A small WebP as a data URI; None for an image that can't be opened."""
    try:
        image = open_image(root, path)
    except CoincideError:
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    image.save(file, "WEBP", quality=50, method=4)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def script_json(data: Any) -> str:
    """JSON that can stand in a script element, whatever text it holds."""
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text.encode("utf-8", "replace").decode()


def find_centroids(stores: Sequence[str], chosen: Selection) -> np.ndarray | None:
    """Centroids float32 [K, D] that a selection left beside its signals, if they are there."""
    from safetensors import SafetensorError, safe_open

    if chosen.labels is None:
        return None
    for store in stores:
        for path in sorted(Path(store, "selection").glob("clusters-*.safetensors")):
            try:
                with safe_open(path, "np") as file:
                    if np.array_equal(file.get_tensor("labels"), chosen.labels):
                        centroids: np.ndarray = file.get_tensor("centroids")
                        return centroids
            except (SafetensorError, OSError):
                continue
    return None
