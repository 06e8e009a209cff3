"""What a run cost: its own stages, and all that its selection rests on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import lightning
import yaml

from coincide_pl.errors import CoincideError
from coincide_pl.files import write_text
from coincide_pl.reporting.stages import STAGES, stage_seconds
from coincide_pl.selection import Selection

INPUTS = "inputs.json"


class NoteInputs(lightning.Callback):
    """Notes in the run's directory, in `inputs.json`, what a fit starts from and has read."""

    def on_fit_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Writes the file, from one process."""
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            content = json.dumps(inputs(trainer, pl_module), indent=1)
            write_text(Path(trainer.default_root_dir) / INPUTS, content)


def inputs(trainer: lightning.Trainer, module: lightning.LightningModule) -> dict[str, Any]:
    """What a fit starts from and has read.

    Returns:
        `model`: fingerprint of the checkpoint; `signals`: fingerprints of the stores that its
        selector and its model have read, by directory.
    """
    data = trainer.datamodule  # type: ignore[attr-defined]
    return {
        "model": getattr(module, "fingerprint", None),
        "signals": dict(getattr(data, "signals_read", {})),
    }


def noted_inputs(folder: Path) -> dict[str, Any] | None:
    """What a run's fit has noted; None where it has not.

    Raises:
        CoincideError: the file is damaged.
    """
    path = folder / INPUTS
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text())
        return {"model": content["model"], "signals": dict(content["signals"])}
    except (ValueError, KeyError, TypeError) as error:
        raise CoincideError(f"{path}: damaged; run `coincide fit` again") from error


def costs(folder: Path, config: dict[str, Any]) -> tuple[dict[str, float], bool]:
    """Seconds by stage of a run, and of what its selection rests on.

    Where a fit or its selector read signals, the stages that wrote them count, and those that made
    the model which wrote them, and so on back: each directory's configs name where the next one
    lies. What the target's own start rests on does not count: all that are compared share it.

    Args:
        folder: the run's.
        config: of its `fit`.

    Returns:
        Seconds, tests left out, and whether the stages of all signals were found.
    """
    start = run_of(config.get("model", {}).get("init_args", {}).get("pretrained"))
    known = lineage(start) if start else []
    spent: dict[str, float] = {}
    read, whole = stores_read(folder, config)
    for store in read:
        writer = run_of(store)
        whole = whole and writer is not None
        for before in reversed(lineage(writer) if writer else []):
            if before not in known:
                known.append(before)
                for stage, seconds in _training(before).items():
                    spent[f"{before.name} {stage}"] = seconds
    for stage, seconds in _training(folder).items():
        spent[stage] = seconds
    return spent, whole


def lineage(run: Path) -> list[Path]:
    """A run's directory, and those of the runs that its models and signals come from."""
    found, todo = [], [run]
    while todo:
        folder = todo.pop(0)
        if folder in found:
            continue
        found.append(folder)
        for path in sorted(folder.glob("*.yaml")):
            if path.stem not in ("fit", "predict"):
                continue
            config = read_config(path)
            pretrained = config.get("model", {}).get("init_args", {}).get("pretrained")
            read = stores_read(folder, config)[0] if path.stem == "fit" else []
            todo += [near for near in map(run_of, [pretrained, *read]) if near]
    return found


def stores_read(folder: Path, config: dict[str, Any]) -> tuple[list[str], bool]:
    """Directories of the signals that a fit and its selection were made from.

    Args:
        folder: the run's.
        config: of its `fit`.

    Returns:
        What the fit has noted; and the stores that its config names where the selection was made
        from others, as one that was handed to it is, or where nothing is noted. And whether that
        is all there is.
    """
    noted = noted_inputs(folder)
    named = config.get("data", {}).get("init_args", {}).get("signals") or []
    named = [named] if isinstance(named, str) else list(named)
    file = selection_file(folder, config)
    made_from = Selection.load(file).made_from if file.is_file() else {}
    needed = set(made_from["signals"].split(" + ")) if "signals" in made_from else set()
    if noted is None and not needed:  # an older run: what its model read, no selection tells
        return ([] if file.is_file() else named), True
    read = list(noted["signals"]) if noted else []
    if needed <= set(noted["signals"].values() if noted else ()):
        return read, noted is not None or not named
    return list(dict.fromkeys([*read, *named])), bool(named)


def selection_file(folder: Path, config: dict[str, Any]) -> Path:
    """Where the selection lies that a fit was trained on."""
    handed = config.get("data", {}).get("init_args", {}).get("selection")
    return Path(handed) if handed else folder / "selection.safetensors"


def run_of(path: str | None) -> Path | None:
    """The run's directory that a model or a store lies in; None for what no run has made."""
    places = [] if path is None else [Path(path).resolve(), Path(path).resolve().parent]
    return next((place for place in places if (place / STAGES).is_file()), None)


def read_config(path: Path) -> dict[str, Any]:
    """The config that a stage left in its run's directory.

    Raises:
        CoincideError: it is missing or damaged.
    """
    if not path.is_file():
        raise CoincideError(f"{path}: not there; a run of `coincide fit` leaves it")
    try:
        return parse_config(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CoincideError(f"{path}: damaged; it can't be read as a config") from error


def parse_config(text: str) -> dict[str, Any]:
    """A config as a stage wrote it.

    Raises:
        yaml.YAMLError: it is none.
    """
    config = yaml.safe_load(text)
    if not isinstance(config, dict):
        raise yaml.YAMLError("not a mapping")
    return config


def _training(folder: Path) -> dict[str, float]:
    seconds = stage_seconds(folder)
    return {stage: s for stage, s in seconds.items() if stage not in ("test", "validate")}
