"""PerSource: any selector, run inside each source of a mix, with a budget for each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import replace
from typing import Any, Literal, cast

import numpy as np

from coincide_pl.data.record import Record
from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Array, Floats, Ints
from coincide_pl.selection.arrays.rows import Part
from coincide_pl.selection.selection import Selection
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind, name_of
from coincide_pl.selection.steps.apportioned import apportioned

Shares = Literal["proportional", "equal"] | dict[str, float]
"""By the sizes of the sources; the same for each; or a weight for each by name."""


class PerSource(Selector):
    """A selector that is run inside each source, such as each data set of a mix.

    The count is divided over the sources first, to exactly as many samples as are asked for: each
    source gets the whole part of its share, and the largest remainders one more, the earlier source
    first where they are equal. A source smaller than its share is taken whole, and the others share
    what it leaves. The rows are in the order of the sources in the data, and inside a source in the
    order of picking.

    `num_clusters` of a selector that clusters is the number of clusters of all sources together,
    of each level where there are several: each source gets its part of them by its size, at least
    one.
    """

    def __init__(self, selector: Selector, shares: Shares = "proportional") -> None:
        """Takes what the other selector needs.

        Args:
            selector: the method that chooses inside each source.
            shares: how the count is divided over the sources: `proportional` to their sizes,
                `equal`, or weights by source, such as `{coco: 2, vg: 1}`, of which sources that are
                not named get none.

        Raises:
            SelectionError: a weight is negative or infinite, or none is positive.
        """
        if isinstance(shares, dict):
            for source, weight in shares.items():
                if not 0 <= weight < np.inf:
                    raise SelectionError(f"shares: {weight} of {source!r} must be a number from 0")
            if not any(shares.values()):
                raise SelectionError("shares: no source has a weight")
        self.selector, self.shares = selector, shares
        # Of this instance: what it reads, and who runs it, is as the other selector has it.
        self.several = selector.several  # type: ignore[misc]
        self.by_all_processes = selector.by_all_processes  # type: ignore[misc]

    @property
    def needs(self) -> tuple[SignalKind, ...]:
        """The signals that the other selector needs."""
        return self.selector.needs

    @property
    def stores(self) -> Mapping[str, Sequence[str]]:
        """The stores of other data that the other selector reads."""
        return {f"selector.{option}": paths for option, paths in self.selector.stores.items()}

    @property
    def config(self) -> dict[str, Any]:
        """Class path and hyperparameters, those of the other selector among them."""
        found = super().config
        found["init_args"]["selector"] = self.selector.config
        return found

    def pick(self, pool: Pool, count: int) -> Picks:
        """Divides the count, and lets the other selector choose in each source.

        Raises:
            SelectionError: a weight is of no source, or the weighted sources hold too few samples.
        """
        sources = sources_of(pool.sources)
        sizes = np.array([len(rows) for rows in sources.values()])
        counts = apportioned(self._weights(sources, sizes), sizes, count)
        chosen: dict[str, tuple[Ints, Selection]] = {}
        for (name, rows), own in zip(sources.items(), counts.tolist(), strict=True):
            if own:
                inner = self._sized(len(rows) / len(pool))
                try:
                    chosen[name] = rows, inner.select(part_of(pool, inner, name, rows), own)
                except SelectionError as error:
                    said = str(error).replace("data.selector.", "data.selector.selector.")
                    raise SelectionError(f"source {name!r}: {said}") from error
        figures = {name: one.figures for name, (_, one) in chosen.items() if one.figures}
        picks = Picks(
            np.concatenate([rows[one.indices] for rows, one in chosen.values()]),
            figures={"counts": dict(zip(sources, counts.tolist(), strict=True)), **figures},
        )
        if len(chosen) < len(sources) or any(one.labels is None for _, one in chosen.values()):
            return picks  # rows without a cluster
        return replace(picks, **_joined(len(pool), [*chosen.values()]))

    def _weights(self, sources: dict[str, Ints], sizes: Ints) -> Floats:
        """The weight of each source, float64 [S]."""
        if self.shares == "proportional":
            return sizes.astype(np.float64)
        if not isinstance(self.shares, dict):
            return np.ones(len(sources))
        if unknown := [name for name in self.shares if name not in sources]:
            known = ", ".join([*sources][:10])
            raise SelectionError(f"shares: there is no source {unknown[0]!r}; known are {known}")
        return np.array([self.shares.get(name, 0.0) for name in sources])

    def _sized(self, share: float) -> Selector:
        """The other selector, with this share of its clusters."""
        inner = copy(self.selector)
        clusters = getattr(inner, "num_clusters", None)
        if isinstance(clusters, int):
            vars(inner)["num_clusters"] = max(1, int(clusters * share))
        elif isinstance(clusters, list):  # of several levels
            vars(inner)["num_clusters"] = [max(1, int(level * share)) for level in clusters]
        return inner


def sources_of(sources: Sequence[str]) -> dict[str, Ints]:
    """The rows of each source, int64 ascending, by name, in the order in which sources begin.

    Args:
        sources: of the records, [N].
    """
    names: dict[str, int] = {}
    codes = np.array([names.setdefault(name, len(names)) for name in sources], np.int64)
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes, minlength=len(names)))[:-1]
    return dict(zip(names, np.split(order, ends), strict=True))


def part_of(pool: Pool, selector: Selector, name: str, rows: Ints) -> Pool:
    """The rows of a source as a pool; of wide signals, rows are read when they are asked for.

    Args:
        pool: all rows.
        selector: tells which signals it needs.
        name: of the source; what is kept of it is kept apart from that of others.
        rows: int64 ascending.
    """

    def own(values: Array) -> Array:
        return values[rows] if values.ndim == 1 else cast("Array", Part(values, rows))

    return replace(
        pool,
        records=_Records(pool.records, rows),
        signals={kind: own(pool.signals[kind]) for kind in map(name_of, selector.needs)},
        several={kind: [*map(own, pool.several[kind])] for kind in map(name_of, selector.several)},
        cache=pool.cache.also({"source": name, "rows": len(rows)}),
    )


class _Records(Sequence[Record]):
    """Some of the records, each read when it is asked for."""

    def __init__(self, records: Sequence[Record], rows: Ints) -> None:
        self.records, self.rows = records, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self.records[int(row)] for row in self.rows[index]]
        return self.records[int(self.rows[index])]


def _joined(size: int, chosen: list[tuple[Ints, Selection]]) -> dict[str, Any]:
    """Clusters of all sources as one list: their columns, and labels int32 [size]."""
    labels, first = np.empty(size, np.int32), 0
    for rows, one in chosen:
        labels[rows] = np.asarray(one.labels) + first
        first += max(map(len, one.clusters.values()), default=int(labels[rows].max()) + 1 - first)
    columns = chosen[0][1].clusters
    clusters = {name: np.concatenate([one.clusters[name] for _, one in chosen]) for name in columns}
    return {"clusters": clusters, "labels": labels}
