"""Samples of each cluster that a report shows, and their thumbnails, within a budget of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from coincide_pl.data.images import open_image
from coincide_pl.data.record import IMAGE_MARK, Record
from coincide_pl.data.records import Records
from coincide_pl.errors import CoincideError
from coincide_pl.selection import Selection

TEXT_BYTES, IMAGE_BYTES = 7_000_000, 15_000_000
"""Bytes of samples' texts, and of thumbnails, that a report holds at most."""
PER_CLUSTER = 24
"""Number of samples of a cluster that are shown at most."""


@dataclass
class Sample:
    """A sample that a report shows.

    Attributes:
        row: its row among the records.
        id: id of the record.
        picked: whether it is selected.
        turns: role and text of each turn.
        image: number of its thumbnail; -1 where it has none.
    """

    row: int
    id: str
    picked: bool
    turns: list[tuple[str, str]]
    image: int = -1

    def cells(self) -> list[object]:
        """The sample as the page's script reads it."""
        return [self.row, self.id, int(self.picked), self.turns, self.image]


def choose_samples(
    chosen: Selection,
    records: Records,
    picked: npt.NDArray[np.bool_],
    labels: npt.NDArray[np.int32],
) -> tuple[list[list[Sample]], list[str]]:
    """Samples of each cluster to show, half of them picked, and thumbnails.

    Args:
        chosen: the selection.
        records: records that it was made from.
        picked: whether a record is selected, [N].
        labels: cluster of each record, [N].

    Returns:
        Samples of each cluster; and the images as data URIs.
    """
    groups = list(shown(chosen, picked, labels))
    each = TEXT_BYTES // max(1, sum(map(len, groups)))
    opened: list[tuple[int, int, Record]] = []
    samples: list[list[Sample]] = []
    for number, rows in enumerate(groups):
        own: list[Sample] = []
        for row in rows:
            record = records[row]
            own.append(Sample(row, record.id[:80], bool(picked[row]), list(cut(record, each))))
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
        samples[number][at].image = known[path]
    return samples, images


def num_clusters(chosen: Selection, labels: npt.NDArray[np.int32]) -> int:
    """Number of clusters that a selection knows of; 1 where there are none."""
    largest = int(labels.max(initial=0)) + 1
    return max(largest, *(len(column) for column in chosen.clusters.values()), 1)


def shown(
    chosen: Selection, picked: npt.NDArray[np.bool_], labels: npt.NDArray[np.int32]
) -> Iterator[list[int]]:
    """Yield each cluster's rows to show: its first picks, then others spread over the records."""
    num = num_clusters(chosen, labels)
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


def cut(record: Record, most: int) -> Iterator[tuple[str, str]]:
    """Yield role and text of a record's turns, up to so many characters in all."""
    left = max(most, 40)
    for turn in record.turns:
        if left <= 0:
            return
        text = turn.text.replace(IMAGE_MARK, "").strip()
        yield turn.role, text if len(text) <= left else text[:left] + "…"
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
