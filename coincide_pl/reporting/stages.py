"""Wall-clock of each stage: a line per attempt in `stages.jsonl` of the run's directory."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from coincide_pl.errors import CoincideError
from coincide_pl.files import UNUSABLE, append, reading

STAGES = "stages.jsonl"


@contextmanager
def timed(directory: str | Path, stage: str) -> Iterator[None]:
    """Note the wall-clock seconds of a stage, whether it came to its end, and where it began."""
    begin, folder = time.perf_counter(), os.getcwd()

    def note(finished: bool) -> None:
        seconds = round(time.perf_counter() - begin, 3)
        line = {"stage": stage, "seconds": seconds, "finished": finished, "folder": folder}
        append(Path(directory) / STAGES, json.dumps(line) + "\n")

    try:
        yield
    except BaseException:
        with suppress(CoincideError):  # what went wrong before says more
            note(False)
        raise
    note(True)


def started_in(directory: str | Path, stage: str) -> Path:
    """The folder that a stage was last started in, which paths in its config are relative to.

    Args:
        directory: directory of the run.
        stage: name of the stage.

    Returns:
        The folder; the current one where none is noted, or where it is no more.
    """
    path = Path(directory) / STAGES
    folder = Path.cwd()
    for text in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        with suppress(*UNUSABLE):
            line = json.loads(text)
            if line["stage"] == stage and Path(line["folder"]).is_dir():
                folder = Path(line["folder"])
    return folder


def stage_seconds(directory: str | Path) -> dict[str, float]:
    """Wall-clock seconds of each stage's last complete run, its interrupted attempts counted.

    Raises:
        CoincideError: no stage has finished there.
    """
    path = Path(directory) / STAGES
    if not path.is_file():
        raise CoincideError(f"{path}: no stage has finished there; run it first")
    spent: dict[str, float] = {}
    total: dict[str, float] = {}
    with reading(path, "delete it"):
        lines = path.read_text().splitlines()
    for number, text in enumerate(lines):
        with reading(f"{path}: line {number + 1}", "delete it"):
            line = json.loads(text)
            stage, seconds = str(line["stage"]), float(line["seconds"])
            if not 0 <= seconds < math.inf:
                raise ValueError("no number of seconds")
            spent[stage] = spent.get(stage, 0.0) + seconds
            if line.get("finished"):
                total[stage] = spent.pop(stage)
    return total
