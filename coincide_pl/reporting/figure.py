"""Figures of a comparison and of an overlap, as PNG files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from coincide_pl.files import beside
from coincide_pl.reporting.bootstrap import Floats
from coincide_pl.reporting.escape import label
from coincide_pl.reporting.rows import Row
from coincide_pl.reporting.stages import TIMES, Clock
from coincide_pl.reporting.tables import columns_of, deviation

if TYPE_CHECKING:  # matplotlib is loaded when a figure is drawn
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442")
"""Okabe and Ito's colors, which color-blind readers tell apart too."""
MARKERS = "osD^vPX*"
LABELED = 4
"""Number of rows up to which bars have their heights written on them."""
CROWDED = 8, 60
"""Number of tasks, and of bars, above which bars become a table of numbers."""


def draw(rows: Sequence[Row], path: Path, clock: Clock = "wall") -> None:
    """Draw scores by task beside costs by stage.

    Args:
        rows: rows of the comparison.
        path: PNG file to write.
        clock: by which the seconds were counted.
    """
    tasks = [*rows[0].scores, "mean"]
    crowded = len(tasks) > CROWDED[0] or len(rows) * len(tasks) > CROWDED[1]
    size: tuple[float, float] = (13, 4.8 if len(rows) <= LABELED else 6)
    if crowded:
        size = (8 + 0.7 * len(tasks), 2.4 + 0.36 * len(rows))
    figure = _figure(size)
    left, right = figure.subplots(1, 2, width_ratios=[1.7, 1], sharey=crowded)
    left.set_title("Score by task")
    (_numbers if crowded else _bars)(left, rows, tasks)
    _costs(right, rows, clock)
    _save(figure, path)


def _bars(axes: Axes, rows: Sequence[Row], tasks: Sequence[str]) -> None:
    """A group of bars for each task, a bar for each row."""
    width = 0.8 / len(rows)
    at = np.arange(len(tasks))
    for i, row in enumerate(rows):
        columns = [100 * column for column in (*row.scores.values(), row.mean)]
        heights = [column.mean() for column in columns]
        bars = axes.bar(
            at + (i - (len(rows) - 1) / 2) * width,
            heights,
            0.94 * width,
            yerr=[deviation(c) for c in columns] if len(row.runs) > 1 else None,
            error_kw={"elinewidth": 0.8},
            label=label(row.name) + _relative(row),
            **_style(i),
        )
        if len(rows) <= LABELED:
            axes.bar_label(bars, [f"{h:.0f}" for h in heights], fontsize=8, padding=1)
    axes.set_xticks(at, list(map(label, tasks)))
    axes.set_ylim(0, 112)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("score (%)")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)


def _relative(row: Row) -> str:
    """A row's relative performance in words, where it is known."""
    return "" if row.relative is None else f" (relative {100 * row.relative.mean():.1f} %)"


def _numbers(axes: Axes, rows: Sequence[Row], tasks: Sequence[str]) -> None:
    """A colored cell for each score, where bars would be too thin to see."""
    scores = np.array([[100 * column.mean() for column in columns_of(row)] for row in rows])
    axes.imshow(scores, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for (i, j), score in np.ndenumerate(scores):
        color = "black" if score > 60 else "white"
        axes.text(j, i, f"{score:.0f}", ha="center", va="center", fontsize=9, color=color)
    names = [*tasks, "relative"][: scores.shape[1]]
    axes.set_xticks(
        range(len(names)), list(map(label, names)), rotation=45, ha="right", rotation_mode="anchor"
    )
    axes.set_yticks(range(len(rows)), [label(row.name) for row in rows])


def _costs(axes: Axes, rows: Sequence[Row], clock: Clock) -> None:
    """A bar for each row, made of its stages."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row.by_stage))
    stages.sort(key=lambda stage: stage == "fit")
    at = np.arange(len(rows))
    start = np.zeros(len(rows))
    for i, stage in enumerate(stages):
        spent = np.array([row.by_stage.get(stage, 0.0) / 60 for row in rows])
        axes.barh(at, spent, left=start, label=label(stage), **_style(i + 2))
        start += spent
    for i, row in enumerate(rows):
        total = f"{'' if row.whole else '≥ '}{row.total / 60:.1f}" if row.seconds else "not known"
        axes.text(start[i] * 1.01, i, total, va="center", fontsize=9)
    axes.set_yticks(at, [label(row.name) for row in rows])
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_xlim(0, max(start.max() * 1.12, 1e-9))
    axes.set_xlabel(f"{TIMES[clock]} (minutes)")
    axes.set_title("What it cost")
    if stages:
        axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=2, frameon=False)


def draw_pareto(rows: Sequence[Row], path: Path, clock: Clock = "wall") -> None:
    """Draw relative performance against the total cost, selecting counted.

    The line joins rows that no other one excels both in performance and in cost.

    Args:
        rows: rows of the comparison; one without a known cost is left out.
        path: PNG file to write.
        clock: by which the seconds were counted.
    """
    figure = _figure((8, 5))
    axes = figure.subplots()
    points = []
    for i, row in enumerate(rows):
        if not row.seconds or row.relative is None:
            continue
        points.append((row.total, float(row.relative.mean())))
        axes.errorbar(
            row.total / 60,
            100 * row.relative.mean(),
            yerr=100 * deviation(row.relative) if len(row.runs) > 1 else None,
            **_line(i),
            linestyle="none",
            label=label(row.name),
        )
    best = -np.inf
    front = []
    for total, relative in sorted(points, key=lambda point: (point[0], -point[1])):
        if relative > best:
            best = relative
            front.append((total / 60, 100 * best))
    axes.plot(*zip(*front, strict=True), color="#bbbbbb", linewidth=1, zorder=0)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{TIMES[clock]} in all (minutes)")
    axes.set_ylabel("relative performance (%)")
    axes.set_title("What a score costs")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, path)


def draw_fractions(rows: Sequence[Row], path: Path) -> None:
    """Draw relative performance against the fraction selected, a line for each method.

    Args:
        rows: rows of the comparison.
        path: PNG file to write.
    """
    figure = _figure((8, 5))
    axes = figure.subplots()
    methods = list(dict.fromkeys(row.method for row in rows if row.fraction < 1))
    for i, method in enumerate(methods):
        own = [(r.fraction, r.relative) for r in rows if r.method == method]
        points = [(fraction, relative) for fraction, relative in own if relative is not None]
        axes.errorbar(
            [100 * fraction for fraction, _ in points],
            [100 * relative.mean() for _, relative in points],
            yerr=[100 * np.nan_to_num(deviation(relative)) for _, relative in points],
            **_line(i),
            capsize=2,
            label=label(method),
        )
    axes.axhline(100, color="#bbbbbb", linewidth=1, zorder=0, label="all data")
    axes.set_xlabel("selected (% of the data)")
    axes.set_ylabel("relative performance (%)")
    axes.set_title("What a fraction is worth")
    axes.legend(loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    _save(figure, path)


def draw_matrix(matrix: Floats, names: Sequence[str], path: Path) -> None:
    """Draw the Jaccard indices of selections as a matrix.

    Args:
        matrix: Jaccard index of each pair, [n, n], in [0, 1].
        names: names of the selections, [n].
        path: PNG file to write.
    """
    side = 2.5 + 0.6 * len(names)
    figure = _figure((side + 1, side))
    axes = figure.subplots()
    picture = axes.imshow(100 * matrix, cmap="cividis", vmin=0, vmax=100)
    labels = list(map(label, names))
    axes.set_xticks(range(len(names)), labels, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), labels)
    for (i, j), value in np.ndenumerate(matrix):
        color = "black" if value > 0.6 else "white"
        axes.text(j, i, f"{100 * value:.0f}", ha="center", va="center", fontsize=8, color=color)
    axes.set_title("What selections share")
    figure.colorbar(picture, label="Jaccard index (%)", shrink=0.8)
    _save(figure, path)


def _figure(size: tuple[float, float]) -> Figure:
    """An empty figure of so many inches across and up."""
    from matplotlib.figure import Figure

    return Figure(figsize=size, layout="constrained")


def _style(number: int) -> dict[str, Any]:
    """Style of bars: colors, and hatches where these come round again."""
    hatch = ("", "//", "..")[number // len(COLORS) % 3]
    return {"color": COLORS[number % len(COLORS)], "hatch": hatch, "edgecolor": "white"}


def _line(number: int) -> dict[str, Any]:
    """Style of a line and its markers."""
    return {
        "color": COLORS[number % len(COLORS)],
        "marker": MARKERS[(number + number // len(COLORS)) % len(MARKERS)],
        "markersize": 7,
    }


def _save(figure: Figure, path: Path) -> None:
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    with beside(path) as aside:
        figure.savefig(aside, dpi=150, format="png")
