"""Compare finished runs: accuracy by task, relative performance, and wall-clock."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from coincide_pl.data.readers.reader import write_text
from coincide_pl.errors import CoincideError
from coincide_pl.reporting.figure import draw
from coincide_pl.reporting.stages import stage_seconds


@dataclass
class Run:
    """A run to compare.

    Attributes:
        name: as it is shown.
        directory: its `trainer.default_root_dir`, with the `results.json` of a test.
        needs: directories of the runs that it would not be without, such as the reference model's:
            their stages count as its cost.
    """

    name: str
    directory: str
    needs: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Row:
    """What one run came to.

    Attributes:
        name: of the run.
        scores: by task, in [0, 1].
        mean: over the tasks.
        relative: mean over tasks of score / full run's score.
        seconds: wall-clock by stage, what it needs included, tests left out.
    """

    name: str
    scores: dict[str, float]
    mean: float
    relative: float
    seconds: dict[str, float]

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return sum(self.seconds.values())


def compare(runs: list[Run], full: str, output: str) -> None:
    """Compare tested runs: prints a table, and writes it with a figure.

    Args:
        runs: what is compared.
        full: name of the run on all data, which relative performance refers to.
        output: folder for `comparison.csv`, `comparison.md` and `comparison.png`.

    Raises:
        CoincideError: a run is not there, not tested, or tested on other questions.
    """
    rows = compared(runs, full)
    folder = Path(output)
    parts = {
        f"Accuracy in %, and relative to {full}": accuracies(rows),
        "Wall-clock in seconds": times(rows),
    }
    text = io.StringIO()
    csv.writer(text).writerows(
        [*first, *second[1:]] for first, second in zip(*parts.values(), strict=True)
    )
    write_text(folder / "comparison.csv", text.getvalue())
    write_text(folder / "comparison.md", "\n".join(markdown(part) for part in parts.values()))
    draw(rows, full, folder / "comparison.png")
    console = Console(width=None if sys.stdout.isatty() else 120)
    for title, (header, *lines) in parts.items():
        printed = Table(*header, title=title)
        for column in printed.columns[1:]:
            column.justify = "right"
        for line in lines:
            printed.add_row(*line)
        console.print(printed)
    names = ("comparison.csv", "comparison.md", "comparison.png")
    console.print("wrote " + ", ".join(str(folder / name) for name in names), soft_wrap=True)


def compared(runs: list[Run], full: str) -> list[Row]:
    """Read the runs and relate them to the one on all data.

    Raises:
        CoincideError: see `compare`.
    """
    names = [run.name for run in runs]
    if full not in names:
        raise CoincideError(f"full: no run is called {full!r}; there are {', '.join(names)}")
    results = {run.name: _results(run) for run in runs}
    base = results[full]
    rows = []
    for run in runs:
        result = results[run.name]
        if (result["data"], result["counts"]) != (base["data"], base["counts"]):
            raise CoincideError(f"{run.directory}: was tested on other questions than {full!r}")
        scores = {task: result["scores"][task] for task in result["counts"]}
        relative = [score / max(base["scores"][task], 1e-12) for task, score in scores.items()]
        seconds: dict[str, float] = {}
        for directory in [*run.needs, run.directory]:
            for stage, spent in stage_seconds(directory).items():
                if stage in ("test", "validate"):
                    continue
                known = stage in seconds or (directory != run.directory and stage == "fit")
                name = f"{Path(directory).name} {stage}" if known else stage
                seconds[name] = seconds.get(name, 0.0) + spent
        mean = float(np.mean(list(scores.values())))
        rows.append(Row(run.name, scores, mean, float(np.mean(relative)), seconds))
    return rows


def accuracies(rows: list[Row]) -> list[list[str]]:
    """Header and lines: per cent by task, their mean, relative performance."""
    tasks = list(rows[0].scores)
    lines = [
        [row.name, *(f"{100 * x:.1f}" for x in (*row.scores.values(), row.mean, row.relative))]
        for row in rows
    ]
    return [["run", *tasks, "mean", "relative"], *lines]


def times(rows: list[Row]) -> list[list[str]]:
    """Header and lines: seconds by stage, and their sum."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row.seconds))
    lines = [
        [
            row.name,
            *(f"{row.seconds[s]:.0f}" if s in row.seconds else "-" for s in stages),
            f"{row.total:.0f}",
        ]
        for row in rows
    ]
    return [["run", *stages, "total"], *lines]


def markdown(lines: list[list[str]]) -> str:
    """A table in Markdown; the first line is its header."""
    rule = ["---"] + ["---:"] * (len(lines[0]) - 1)
    return "".join("| " + " | ".join(line) + " |\n" for line in [lines[0], rule, *lines[1:]])


def _results(run: Run) -> dict[str, Any]:
    path = Path(run.directory) / "results.json"
    if not path.is_file():
        raise CoincideError(f"{path}: no results of {run.name!r}; run `coincide test` for it")
    try:
        content = json.loads(path.read_text())
        if not {"scores", "counts", "data"} <= set(content):
            raise ValueError("keys")
    except ValueError as error:
        raise CoincideError(f"{path}: damaged; run `coincide test` again") from error
    return content
