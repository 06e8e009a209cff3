"""A finished run as its directory tells it: how it chose and trained, what it scored and cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from coincide_pl.errors import CoincideError
from coincide_pl.reporting.lmms_eval import lmms_results
from coincide_pl.reporting.stages import STAGES, stage_seconds
from coincide_pl.selection import Selection

RECIPE = (
    *("model", "data.train", "data.batch_size", "data.token_budget", "data.max_length"),
    *("trainer.max_epochs", "trainer.max_steps", "trainer.precision", "trainer.devices"),
    *("trainer.num_nodes", "trainer.gradient_clip_val", "trainer.accumulate_grad_batches"),
    "trainer.limit_train_batches",
)
"""Parts of the config of `fit` that runs must share to be compared."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that was fitted and tested; see `load`.

    Attributes:
        directory: its `trainer.default_root_dir`.
        selector: class name.
        options: the selector's hyperparameters, its seed left out.
        fraction: of the training data that was selected.
        data: fingerprint of the training data.
        seed: of the run (`seed_everything`).
        recipe: what `RECIPE` names, by dotted name.
        scores: by task, in [0, 1].
        counts: questions by task.
        questions: metric, and fingerprint of the test data.
        seconds: wall-clock by stage, tests left out; see `costs`.
        whole: whether the cost of all that the selection rests on is known.
    """

    directory: Path
    selector: str
    options: dict[str, Any]
    fraction: float
    data: str
    seed: int
    recipe: dict[str, Any]
    scores: dict[str, float]
    counts: dict[str, int]
    questions: str
    seconds: dict[str, float]
    whole: bool

    @classmethod
    def load(cls, directory: str | Path) -> FinishedRun:
        """Reads a run's directory.

        Raises:
            CoincideError: something that `fit` and `test` leave there is missing or damaged.
        """
        folder = Path(directory)
        if not folder.is_dir():
            raise CoincideError(f"{folder}: no such directory")
        results = _results(folder)
        config = _config(folder / "fit.yaml")
        chosen = Selection.load(folder / "selection.safetensors")
        options = dict(chosen.selector["init_args"])
        options.pop("seed", None)
        seconds, whole = costs(folder, config)
        return cls(
            folder,
            chosen.selector["class_path"].rpartition(".")[2],
            options,
            len(chosen.indices) / chosen.pool_size,
            chosen.made_from["data"],
            int(config.get("seed_everything") or 0),
            {name: value for name in RECIPE for name, value in _flat(name, config)},
            {task: results["scores"][task] for task in results["counts"]},
            results["counts"],
            f"{results.get('metric')} {results['data']}",
            seconds,
            whole,
        )

    @cached_property
    def correct(self) -> dict[str, np.ndarray] | None:
        """What each answer is worth by task, float32 [counts], in the data's order.

        None where answers were not kept, or where a task's score is not their mean.
        """
        path = self.directory / "answers.jsonl"
        if not path.is_file():
            return None
        found: dict[str, list[float]] = {task: [] for task in self.counts}
        try:
            for line in path.read_text().splitlines():
                answer = json.loads(line)
                found[answer["task"]].append(float(answer["outcome"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CoincideError(f"{path}: damaged; run `coincide test` again") from error
        if {task: len(scores) for task, scores in found.items()} != self.counts:
            raise CoincideError(f"{path}: not of the test in results.json; test again")
        worth = {task: np.array(outcomes, np.float32) for task, outcomes in found.items()}
        means = all(abs(own.mean() - self.scores[task]) < 1e-4 for task, own in worth.items())
        return worth if means else None


def costs(folder: Path, config: dict[str, Any]) -> tuple[dict[str, float], bool]:
    """Seconds by stage of a run, and of what its selection rests on.

    Where a selection was made from signals, the stages that wrote them count, and those that made
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
    whole = True
    for store in stores(config) if reads_signals(folder, config) else []:
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
            config = _config(path)
            pretrained = config.get("model", {}).get("init_args", {}).get("pretrained")
            read = stores(config) if path.stem == "fit" and reads_signals(folder, config) else []
            todo += [near for near in map(run_of, [pretrained, *read]) if near]
    return found


def reads_signals(folder: Path, config: dict[str, Any]) -> bool:
    """Whether a fit read the signals that its config names: its selector did, or its model."""
    file = folder / "selection.safetensors"
    chosen = Selection.load(file).made_from if file.is_file() else {}
    model = str(config.get("model", {}).get("class_path", ""))
    return "signals" in chosen or model.endswith("SelfFilterModule")


def run_of(path: str | None) -> Path | None:
    """The run's directory that a model or a store lies in; None for what no run has made."""
    places = [] if path is None else [Path(path).resolve(), Path(path).resolve().parent]
    return next((place for place in places if (place / STAGES).is_file()), None)


def stores(config: dict[str, Any]) -> list[str]:
    """The signals that a stage's config names."""
    signals = config.get("data", {}).get("init_args", {}).get("signals") or []
    return [signals] if isinstance(signals, str) else list(signals)


def _training(folder: Path) -> dict[str, float]:
    seconds = stage_seconds(folder)
    return {stage: s for stage, s in seconds.items() if stage not in ("test", "validate")}


def _config(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise CoincideError(f"{path}: not there; a run of `coincide fit` leaves it")
    try:
        config = yaml.safe_load(path.read_text())
        if not isinstance(config, dict):
            raise yaml.YAMLError
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise CoincideError(f"{path}: damaged; it can't be read as a config") from error
    return config


def _flat(name: str, config: Any) -> list[tuple[str, Any]]:
    """Leaves of a config below a dotted name, classes' arguments as if they were options."""
    for key in name.split("."):
        while isinstance(config, dict) and key not in config and "init_args" in config:
            config = config["init_args"]
        config = config.get(key) if isinstance(config, dict) else None
    return list(_leaves(name, config))


def _leaves(name: str, value: Any) -> list[tuple[str, Any]]:
    if not isinstance(value, dict):
        return [(name, value)]
    found = []
    for key, inner in value.items():
        found += _leaves(name if key == "init_args" else f"{name}.{key}", inner)
    return found


def _results(folder: Path) -> dict[str, Any]:
    path = folder / "results.json"
    if not path.is_file():
        if found := lmms_results(folder):
            return found
        raise CoincideError(f"{path}: no results; run `coincide test` for it")
    try:
        content = json.loads(path.read_text())
        if not {"scores", "counts", "data"} <= set(content):
            raise ValueError("keys")
    except ValueError as error:
        raise CoincideError(f"{path}: damaged; run `coincide test` again") from error
    return dict(content)
