"""The comparison as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

if TYPE_CHECKING:
    from coincide_pl.reporting.compare import Row

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#999999", "#f0e442")
"""Okabe and Ito's, told apart by colour-blind readers too."""


def draw(rows: list[Row], full: str, path: Path) -> None:
    """Accuracy by task beside wall-clock by stage.

    Args:
        rows: the runs.
        full: name of the run that relative performance refers to.
        path: of the PNG.
    """
    tasks = [*rows[0].scores, "mean"]
    stages = list(dict.fromkeys(stage for row in rows for stage in row.seconds))
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(13, 4.8), width_ratios=[1.7, 1], layout="constrained"
    )
    width = 0.8 / len(rows)
    at = np.arange(len(tasks))
    for i, row in enumerate(rows):
        heights = [100 * s for s in [*row.scores.values(), row.mean]]
        place = at + (i - (len(rows) - 1) / 2) * width
        label = f"{row.name} (relative {100 * row.relative:.1f} %)"
        bars = left.bar(place, heights, 0.94 * width, label=label, color=COLOURS[i % 8])
        left.bar_label(bars, [f"{h:.0f}" for h in heights], fontsize=8, padding=1)
    left.set_xticks(at, tasks)
    left.set_ylim(0, 112)
    left.set_yticks(range(0, 101, 20))
    left.set_ylabel("accuracy (%)")
    left.set_title("Accuracy by task")
    left.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=2, frameon=False)
    names = [row.name for row in rows]
    start = np.zeros(len(rows))
    for i, stage in enumerate(stages):
        spent = np.array([row.seconds.get(stage, 0.0) / 60 for row in rows])
        right.barh(names, spent, left=start, label=stage, color=COLOURS[(i + 2) % 8])
        start += spent
    for i, row in enumerate(rows):
        right.text(start[i] * 1.01, i, f"{row.total / 60:.1f}", va="center", fontsize=9)
    right.set_xlim(0, max(start.max() * 1.12, 1e-9))
    right.invert_yaxis()
    right.set_xlabel("wall-clock (minutes)")
    right.set_title("What it cost")
    right.legend(loc="upper center", bbox_to_anchor=(0.5, -0.12), ncols=3, frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}")
    figure.savefig(aside, dpi=150, format="png")
    aside.replace(path)
    plt.close(figure)
