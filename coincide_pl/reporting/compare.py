"""Compare finished runs: scores by task, relative performance, costs; over several seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from coincide_pl.errors import CoincideError
from coincide_pl.files import write_text
from coincide_pl.reporting import figure, tables
from coincide_pl.reporting.escape import terminal
from coincide_pl.reporting.rows import compared
from coincide_pl.reporting.runs import FinishedRun, is_run
from coincide_pl.reporting.stages import Clock
from coincide_pl.reporting.tracking.offline import find_logs, load_offline


def compare(runs: list[str], output: str = "comparison", clock: Clock = "wall") -> None:
    """Compare tested runs by their directories, or by W&B's files of them: a table, and figures.

    Runs of one method, with the same options and fraction, are seeds of one row; if they have the
    same seed too, the signals that they read tell them apart. Relative performance refers to a run
    on all data; without one, it is left out. A run that was not tested is left out and named.

    Args:
        runs: directories (`trainer.default_root_dir`) of runs that were fitted and tested; or
            W&B's files: `run-….wandb`, the folder `offline-run-…` of one, or one with several.
        output: folder for `comparison.csv`, `.md`, `.tex` and `.png`; with relative performance,
            for `pareto.png`, and `fractions.png` where there are several.
        clock: by which costs count: `wall`, or `cpu`, the time of all processors together, which
            other work on the machine does not make longer.

    Raises:
        CoincideError: runs differ in data, start or recipe, or none is finished.
    """
    found, left_out = load(runs, clock)
    rows = compared(found)
    folder = Path(output)
    parts = [tables.scores(rows), tables.times(rows, clock)]
    write_text(folder / "comparison.csv", tables.csv_text(rows))
    write_text(folder / "comparison.md", "\n".join(part.markdown() for part in parts))
    write_text(folder / "comparison.tex", "\n".join(part.latex() for part in parts))
    figure.draw(rows, folder / "comparison.png", clock)
    names = ["comparison.csv", "comparison.md", "comparison.tex", "comparison.png"]
    related = any(row.relative is not None for row in rows)
    if related and any(row.seconds for row in rows):
        figure.draw_pareto(rows, folder / "pareto.png", clock)
        names.append("pareto.png")
    if related and len({row.fraction for row in rows if row.fraction < 1}) > 1:
        figure.draw_fractions(rows, folder / "fractions.png")
        names.append("fractions.png")
    console = terminal()
    for part in parts:
        console.print(part.within(console.width).rich())
    for reason in [*(f"left out: {reason}" for reason in left_out), *unknown(found)]:
        console.print(reason, soft_wrap=True)
    console.print("wrote " + ", ".join(str(folder / name) for name in names), soft_wrap=True)


def load(paths: Sequence[str], clock: Clock = "wall") -> tuple[list[FinishedRun], list[str]]:
    """Read the runs' directories, and W&B's files.

    Args:
        paths: of them.
        clock: by which costs count; W&B's files have the wall-clock alone.

    Returns:
        The finished runs, and for each other one why it is left out.

    Raises:
        CoincideError: none is finished.
    """
    found, left_out, logs = [], [], []
    places: list[Path] = []
    for path in map(Path, dict.fromkeys(paths)):
        if path.is_dir() and is_run(path):
            places.append(path)
            try:
                found.append(FinishedRun.load(path, clock))
            except CoincideError as error:
                left_out.append(str(error))
        elif own := find_logs(path):
            logs += own
            places += own
        elif path.exists():
            left_out.append(f"{path}: neither the directory of a run nor W&B's files of one")
        else:
            left_out.append(f"{path}: no such directory or file")
    offline, others = load_offline(logs)
    if clock != "wall":
        offline = [replace(run, seconds={}, whole=False) for run in offline]
    found = sorted([*found, *offline], key=lambda run: places.index(run.place))
    left_out += others
    if not found:
        raise CoincideError(f"no finished run: {'; '.join(left_out) or 'none is named'}")
    return found, left_out


def unknown(runs: Sequence[FinishedRun]) -> list[str]:
    """Lines that say what the tables can't show of some runs, because it was not kept."""
    kinds = {
        "no difference to Random without the worth of each answer": [
            run.answers
            for run in runs
            if not (run.answers.is_file() or (run.answers.is_dir() and run.correct))
        ],
        "no costs are noted": [run.place for run in runs if not run.seconds],
    }
    return [
        f"{what}: {paths[0]}{f' and {len(paths) - 1} more' if paths[1:] else ''}"
        for what, paths in kinds.items()
        if paths
    ]
