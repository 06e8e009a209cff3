"""What a run cost: the time of its own stages, and of all that its selection rests on."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from coincide_pl.evaluation.inputs import Inputs
from coincide_pl.reporting.config import Config, option, read_config, stores
from coincide_pl.reporting.stages import STAGES, Clock, stage_seconds, started_in
from coincide_pl.selection import Selection


@dataclass(frozen=True)
class Costs:
    """Time that a run took.

    Attributes:
        seconds: seconds by stage, tests left out.
        whole: whether the stages of everything that the selection rests on are among them.
    """

    seconds: dict[str, float]
    whole: bool


def costs(folder: Path, config: Config, clock: Clock = "wall") -> Costs:
    """Time of a run by stage, and of what its selection rests on.

    Where a fit or its selector read signals, the stages that wrote them count, and those that made
    the model which wrote them, and so on back: each directory's configs name where the next one
    lies. What the target's own start rests on does not count: all that are compared share it.

    Args:
        folder: directory of the run.
        config: config of its `fit`.
        clock: by which the seconds count.
    """
    start = started_from(folder, config, "fit")
    known = lineage(start) if start else []
    spent: dict[str, float] = {}
    read, whole = stores_read(folder, config)
    for store in read:
        writer = run_of(store)
        whole = whole and writer is not None
        for before in reversed(lineage(writer) if writer else []):
            if before not in known:
                known.append(before)
                for stage, seconds in _training(before, clock).items():
                    spent[f"{before.name} {stage}"] = seconds
    return Costs(spent | _training(folder, clock), whole)


def lineage(run: Path) -> list[Path]:
    """Directories of a run, and of the runs that its models and signals come from."""
    found: list[Path] = []
    todo = [run]
    while todo:
        folder = todo.pop(0)
        if folder in found:
            continue
        found.append(folder)
        for path in sorted(folder.glob("*.yaml")):
            if path.stem not in ("fit", "predict"):
                continue
            config = read_config(path)
            read = stores_read(folder, config)[0] if path.stem == "fit" else []
            before = [
                started_from(folder, config, path.stem),
                started_from(folder, config, path.stem, "model.warm_up"),
                *map(run_of, read),
            ]
            todo += filter(None, before)
    return found


def started_from(
    folder: Path, config: Config, stage: str, named: str = "model.pretrained"
) -> Path | None:
    """Directory of the run that made the model which a stage began with, if one did.

    Args:
        folder: directory of the run.
        config: config of the stage.
        stage: name of the stage.
        named: option that names the model, a run, or one of its training checkpoints.
    """
    path = option(config, named)
    if not path:
        return None
    place = started_in(folder, stage) / Path(str(path)).expanduser()
    return run_of(place.parent if place.suffix == ".ckpt" else place)


def stores_read(folder: Path, config: Config) -> tuple[list[Path], bool]:
    """Directories of the signals that a fit and its selection were made from.

    Args:
        folder: directory of the run.
        config: config of its `fit`.

    Returns:
        Directories that the fit has noted; and those that its config names where the selection was
        made from others, as one that was handed to it is, or where nothing is noted. And whether
        these are all.
    """
    noted = Inputs.load(folder)
    place = started_in(folder, "fit")
    named = stores(config, place)
    file = selection_file(folder, config)
    made_from = Selection.load(file).made_from if file.is_file() else {}
    needed = set(made_from["signals"].split(" + ")) if "signals" in made_from else set()
    if noted is None and not needed:  # an older run: what its model read, no selection tells
        return ([] if file.is_file() else named), True
    read = [place / store for store in noted.signals] if noted else []
    if needed <= set(noted.signals.values() if noted else ()):
        return read, noted is not None or not named
    return list(dict.fromkeys([*read, *named])), bool(named)


def selection_file(folder: Path, config: Config) -> Path:
    """The file of the selection that a fit was trained on."""
    handed = option(config, "data.selection")
    if handed:
        return started_in(folder, "fit") / Path(str(handed)).expanduser()
    return folder / "selection.safetensors"


def run_of(path: str | Path) -> Path | None:
    """The run's directory that a model or a store lies in; None for what no run has made."""
    place = Path(os.path.realpath(path))
    return next((one for one in (place, place.parent) if (one / STAGES).is_file()), None)


def _training(folder: Path, clock: Clock) -> dict[str, float]:
    """Seconds of a directory's stages by name, tests left out."""
    seconds = stage_seconds(folder, clock)
    return {stage: s for stage, s in seconds.items() if stage not in ("test", "validate")}
