"""What each stage took: a line per attempt in `stages.jsonl` of the run's directory."""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal

from coincide_pl.errors import CoincideError
from coincide_pl.files import UNUSABLE, append, reading

STAGES = "stages.jsonl"
Clock = Literal["wall", "cpu"]
"""Wall-clock time, or time of all processors together, of the stage's own child processes too."""
TIMES: dict[Clock, str] = {"wall": "wall-clock", "cpu": "processor time"}
KEYS: dict[Clock, str] = {"wall": "seconds", "cpu": "cpu_seconds"}


@contextmanager
def timed(directory: str | Path, stage: str) -> Iterator[None]:
    """Note the seconds of a stage by both clocks, whether it came to its end, where it began."""
    begin, busy, folder = time.perf_counter(), _cpu_seconds(), os.getcwd()

    def note(finished: bool) -> None:
        line = {
            "stage": stage,
            KEYS["wall"]: round(time.perf_counter() - begin, 3),
            KEYS["cpu"]: round(_cpu_seconds() - busy, 3),
            "finished": finished,
            "folder": folder,
        }
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


def stage_seconds(directory: str | Path, clock: Clock = "wall") -> dict[str, float]:
    """Seconds of each stage's last complete run, its interrupted attempts counted.

    Args:
        directory: directory of the run.
        clock: by which; a stage that is not noted by it, as of older runs, is left out.

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
            if clock == "cpu" and KEYS[clock] not in line:
                continue
            stage, seconds = str(line["stage"]), float(line[KEYS[clock]])
            if not 0 <= seconds < math.inf:
                raise ValueError("no number of seconds")
            spent[stage] = spent.get(stage, 0.0) + seconds
            if line.get("finished"):
                total[stage] = spent.pop(stage)
    return total


def _cpu_seconds() -> float:
    """Seconds of processor time so far, of this process and of its children that have ended."""
    spent = os.times()
    return spent.user + spent.system + spent.children_user + spent.children_system
