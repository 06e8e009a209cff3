"""Compare finished runs: accuracy by task, relative performance, and wall-clock."""

from __future__ import annotations

import csv
import io
import json
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
    header, lines = table(rows)
    text = io.StringIO()
    csv.writer(text).writerows([header, *lines])
    write_text(folder / "comparison.csv", text.getvalue())
    write_text(folder / "comparison.md", markdown(header, lines))
    draw(rows, full, folder / "comparison.png")
    printed = Table(*header, title=f"Accuracy, and wall-clock in seconds ({full} = 100 %)")
    for column in printed.columns[1:]:
        column.justify = "right"
    for line in lines:
        printed.add_row(*line)
    console = Console()
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


def table(rows: list[Row]) -> tuple[list[str], list[list[str]]]:
    """Header and lines: accuracies in per cent, seconds by stage."""
    tasks = list(rows[0].scores)
    stages = list(dict.fromkeys(stage for row in rows for stage in row.seconds))
    header = ["run", *tasks, "mean", "relative", *(f"{stage} (s)" for stage in stages), "total (s)"]
    lines = [
        [
            row.name,
            *(f"{100 * row.scores[task]:.1f}" for task in tasks),
            f"{100 * row.mean:.1f}",
            f"{100 * row.relative:.1f}",
            *(f"{row.seconds[s]:.0f}" if s in row.seconds else "-" for s in stages),
            f"{row.total:.0f}",
        ]
        for row in rows
    ]
    return header, lines


def markdown(header: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    rule = ["---"] + ["---:"] * (len(header) - 1)
    return "".join("| " + " | ".join(line) + " |\n" for line in [header, rule, *lines])


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
