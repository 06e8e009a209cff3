"""A finished run as its directory tells it: how it chose and trained, what it scored and cost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from coincide_pl.errors import CoincideError
from coincide_pl.reporting.costs import costs, noted_inputs, read_config, selection_file
from coincide_pl.reporting.lmms_results import lmms_results
from coincide_pl.reporting.stages import STAGES
from coincide_pl.selection import Selection

RECIPE = (
    *("model", "data.batch_size", "data.max_tokens", "data.max_length"),
    *("trainer.max_epochs", "trainer.max_steps", "trainer.precision", "trainer.devices"),
    *("trainer.num_nodes", "trainer.gradient_clip_val", "trainer.accumulate_grad_batches"),
    "trainer.limit_train_batches",
)
"""Parts of the config of `fit` that runs must share to be compared; data have fingerprints."""
START = "model.pretrained"
"""Of these, the path of the start, which a fingerprint of its content stands for where noted."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that was fitted and tested; see `load`.

    Attributes:
        place: its `trainer.default_root_dir`, or W&B's file of its fit.
        selector: class name.
        options: the selector's hyperparameters, its seed left out.
        signals: names of the directories whose signals the selection read.
        fraction: of the training data that was selected.
        data: fingerprint of the training data.
        start: fingerprint of the checkpoint that training started from, if noted.
        seed: of the run (`seed_everything`).
        recipe: what `RECIPE` names, by dotted name.
        scores: by task, in [0, 1].
        counts: questions by task.
        questions: metric, and fingerprint of the test data.
        seconds: wall-clock by stage, tests left out; see `costs`. Empty where it is not known.
        whole: whether the cost of all that the selection rests on is known.
        answers: the file that tells what each answer is worth.
    """

    place: Path
    selector: str
    options: dict[str, Any]
    signals: str
    fraction: float
    data: str
    start: str | None
    seed: int
    recipe: dict[str, Any]
    scores: dict[str, float]
    counts: dict[str, int]
    questions: str
    seconds: dict[str, float]
    whole: bool
    answers: Path

    @classmethod
    def load(cls, directory: str | Path) -> FinishedRun:
        """Reads a run's directory.

        Raises:
            CoincideError: something that `fit` and `test` leave there is missing or damaged.
        """
        folder = Path(directory)
        results = _results(folder)
        config = read_config(folder / "fit.yaml")
        chosen = Selection.load(selection_file(folder, config))
        noted = noted_inputs(folder)
        return cls.of(
            folder,
            folder / "answers.jsonl",
            results,
            config,
            chosen.description,
            noted["model"] if noted else None,
            costs(folder, config),
        )

    @classmethod
    def of(
        cls,
        place: Path,
        answers: Path,
        results: dict[str, Any],
        config: dict[str, Any],
        chosen: dict[str, Any],
        start: str | None,
        costs: tuple[dict[str, float], bool],
    ) -> FinishedRun:
        """Puts together what was noted of a run.

        Args:
            place: see the attributes, for this and the next.
            answers: lines with the `task` and `outcome` of each question.
            results: content of `results.json`.
            config: of `fit`.
            chosen: `description` of the selection.
            start: fingerprint.
            costs: seconds by stage, and whether they are all.
        """
        options = dict(chosen["selector"]["init_args"])
        options.pop("seed", None)
        ((_, read),) = _flat("data.signals", config)
        stores = [read] if isinstance(read, str) else read or []
        return cls(
            place,
            chosen["selector"]["class_path"].rpartition(".")[2],
            options,
            ", ".join(Path(store).name for store in stores),
            chosen["count"] / chosen["pool_size"],
            chosen["made_from"]["data"],
            start,
            int(config.get("seed_everything") or 0),
            {name: value for name in RECIPE for name, value in _flat(name, config)},
            {task: float(results["scores"][task]) for task in results["counts"]},
            {task: int(count) for task, count in results["counts"].items()},
            f"{results.get('metric')} {results['data']}",
            *costs,
            answers,
        )

    @cached_property
    def correct(self) -> dict[str, np.ndarray] | None:
        """What each answer is worth by task, float32 [counts], in the data's order.

        None where answers were not kept, or where a task's score is not their mean.
        """
        if not self.answers.is_file():
            return None
        found: dict[str, list[float]] = {task: [] for task in self.counts}
        try:
            for line in self.answers.read_text().splitlines():
                answer = json.loads(line)
                found[answer["task"]].append(float(answer["outcome"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CoincideError(f"{self.answers}: damaged; run `coincide test` again") from error
        if {task: len(scores) for task, scores in found.items()} != self.counts:
            raise CoincideError(f"{self.answers}: not of the test in its results; test again")
        worth = {task: np.array(outcomes, np.float32) for task, outcomes in found.items()}
        means = all(abs(own.mean() - self.scores[task]) < 1e-4 for task, own in worth.items())
        return worth if means else None


def is_run(folder: Path) -> bool:
    """Whether a stage has left something in a directory that a comparison reads."""
    names = (STAGES, "fit.yaml", "selection.safetensors", "results.json", "lmms_eval")
    return any((folder / name).exists() for name in names)


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
