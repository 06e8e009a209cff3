"""Run the grid of a W&B sweep without W&B, and make a table of what came out.

A cell is the command that `wandb agent` would run, with the same arguments. Whether a cell is done
is for its command to know: one that is done ends at once, so a sweep goes on where it stopped.
"""

import itertools
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from jsonargparse import auto_cli

from coincide_pl.data.readers.reader import write_text
from coincide_pl.reporting.compare import markdown
from coincide_pl.reporting.stages import stage_seconds

Cell = dict[str, Any]


def cells(sweep: dict[str, Any]) -> list[Cell]:
    """Every combination of the parameters' values, the last parameter's changing first.

    Args:
        sweep: a sweep's configuration; its method must be `grid`.
    """
    if sweep.get("method") != "grid":
        sys.exit(f"error: method: {sweep.get('method')!r} can't be run here, only 'grid'")
    values = []
    for name, parameter in sweep["parameters"].items():
        if not {"value", "values"} & set(parameter):
            sys.exit(f"error: parameters.{name}: a grid needs 'value' or 'values'")
        values.append(parameter.get("values") or [parameter["value"]])
    return [dict(zip(sweep["parameters"], row, strict=True)) for row in itertools.product(*values)]


def command(sweep: dict[str, Any], cell: Cell) -> list[str]:
    """What `wandb agent` runs for a cell: the sweep's command with its macros filled in."""
    flags = [f"{name}={value}" for name, value in cell.items()]
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [sweep.get("program", "")],
        "${args}": [f"--{flag}" for flag in flags],
        "${args_no_hyphens}": flags,
    }
    return [word for part in sweep["command"] for word in macros.get(part, [str(part)])]


def run(sweep: str, jobs: int = 1) -> None:
    """Run all cells; one that fails does not stop the others.

    Args:
        sweep: the sweep's YAML.
        jobs: how many at a time; their output is then shown only where one fails.
    """
    config = yaml.safe_load(Path(sweep).read_text())
    todo = cells(config)
    env = dict(os.environ)
    if jobs > 1:
        env.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // jobs)))

    def one(number: int) -> bool:
        begin = time.perf_counter()
        told = subprocess.PIPE if jobs > 1 else None
        done = subprocess.run(
            command(config, todo[number]), env=env, stdout=told, stderr=subprocess.STDOUT, text=True
        )
        name = " ".join(f"{key}={value}" for key, value in todo[number].items())
        how = "done" if done.returncode == 0 else f"failed with status {done.returncode}"
        seconds = time.perf_counter() - begin
        lines = f"{done.stdout or ''}" if done.returncode else ""
        print(f"{lines}{number + 1}/{len(todo)} {name}: {how} in {seconds:.0f} s", flush=True)
        return done.returncode == 0

    with ThreadPoolExecutor(jobs) as pool:
        came_out = list(pool.map(one, range(len(todo))))
    if not all(came_out):
        sys.exit(f"error: {came_out.count(False)} of {len(todo)} runs failed; start again to go on")


def table(sweep: str, runs: str, full: str | None = None, output: str | None = None) -> None:
    """Print the scores of finished cells by method and task: mean ± standard deviation over seeds.

    Args:
        sweep: the sweep's YAML.
        runs: folder of the cells' directories, named by the values of their parameters with
            hyphens between; a file `needs` in one lists the directories whose stages it rests on.
        full: directory of the run on all data, for the relative performance.
        output: Markdown file to write as well.
    """
    groups: dict[tuple[Any, ...], list[Path]] = {}
    for cell in cells(yaml.safe_load(Path(sweep).read_text())):
        path = Path(runs) / "-".join(str(value) for value in cell.values())
        if (path / "results.json").is_file():
            key = tuple(value for name, value in cell.items() if name != "seed")
            groups.setdefault(key, []).append(path)
    if not groups:
        sys.exit(f"error: {runs}: no cell of {sweep} is finished there")
    base = scores(Path(full)) if full else None
    tasks = list(scores(next(iter(groups.values()))[0]))
    relative = [] if base is None else ["relative"]
    lines = [["method", "seeds", *tasks, "mean", *relative, "signals (s)", "selection (s)"]]
    for key, paths in groups.items():
        found = np.array([list(scores(path).values()) for path in paths])  # [seeds, tasks]
        columns = [*found.T, found.mean(1)]
        if base is not None:
            columns.append((found / np.array([base[task] for task in tasks])).mean(1))
        cost = [own_cost(path) for path in paths]
        lines.append(
            [
                " ".join(str(value) for value in key),
                str(len(paths)),
                *(spread(100 * column) for column in columns),
                f"{np.mean([signals for signals, _ in cost]):.0f}",
                spread(np.array([selection for _, selection in cost])),
            ]
        )
    text = markdown(lines)
    print(text, end="")
    if output:
        write_text(output, text)


def scores(path: Path) -> dict[str, float]:
    """A run's scores by task."""
    results = json.loads((path / "results.json").read_text())
    return {task: results["scores"][task] for task in results["counts"]}


def own_cost(path: Path) -> tuple[float, float]:
    """Seconds of making what a cell's selection rests on, and of selecting."""
    needs = (path / "needs").read_text().split() if (path / "needs").is_file() else []
    made = (s for need in needs for stage, s in stage_seconds(need).items() if stage != "test")
    return sum(made), stage_seconds(path).get("select", 0.0)


def spread(values: np.ndarray) -> str:
    """Mean and standard deviation, or the one value."""
    if len(values) == 1:
        return f"{values[0]:.1f}"
    return f"{values.mean():.1f} ± {values.std(ddof=1):.1f}"


if __name__ == "__main__":
    auto_cli([run, table], as_positional=False)
