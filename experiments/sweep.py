"""Run the grid of a W&B sweep without W&B.

A cell is the command that `wandb agent` would run, with the same arguments. Whether a cell is done
is for its command to know: one that is done ends at once, so a sweep goes on where it stopped.
"""

import itertools
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import auto_cli

Cell = dict[str, Any]


def cells(sweep: dict[str, Any], only: dict[str, list[Any]] | None = None) -> list[Cell]:
    """Every combination of the parameters' values, the last parameter's changing first.

    Args:
        sweep: a sweep's configuration; its method must be `grid`.
        only: of some parameters, the values to keep.
    """
    if sweep.get("method") != "grid":
        sys.exit(f"error: method: {sweep.get('method')!r} can't be run here, only 'grid'")
    for name in set(only or {}) - set(sweep["parameters"]):
        sys.exit(f"error: only: {name!r} is no parameter of the sweep")
    values = []
    for name, parameter in sweep["parameters"].items():
        if not {"value", "values"} & set(parameter):
            sys.exit(f"error: parameters.{name}: a grid needs 'value' or 'values'")
        known = parameter.get("values") or [parameter["value"]]
        values.append([one for one in known if one in (only or {}).get(name, known)])
    return [dict(zip(sweep["parameters"], row, strict=True)) for row in itertools.product(*values)]


def command(sweep: dict[str, Any], cell: Cell) -> list[str]:
    """The command that `wandb agent` runs for a cell: the sweep's, with its macros filled in."""
    flags = [f"{name}={value}" for name, value in cell.items()]
    macros = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [sweep.get("program", "")],
        "${args}": [f"--{flag}" for flag in flags],
        "${args_no_hyphens}": flags,
    }
    return [word for part in sweep["command"] for word in macros.get(part, [str(part)])]


def run(sweep: str, jobs: int = 1, only: dict[str, list[Any]] | None = None) -> None:
    """Run all cells; one that fails does not stop the others.

    Args:
        sweep: YAML file of the sweep.
        jobs: number of cells that run at a time; with several, only failures show their output.
        only: values to keep of some parameters, such as `{seed: [0, 1]}`, to run a part.
    """
    config = yaml.safe_load(Path(sweep).read_text())
    todo = cells(config, only)
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


if __name__ == "__main__":
    auto_cli(run, as_positional=False)
