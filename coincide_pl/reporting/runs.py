"""A finished run as its directory tells it: how it chose and trained, what it scored and cost."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from coincide_pl.errors import CoincideError, printable
from coincide_pl.evaluation.inputs import Inputs
from coincide_pl.evaluation.results import ANSWERS, RESULTS, Results
from coincide_pl.files import reading
from coincide_pl.reporting.bootstrap import Correct
from coincide_pl.reporting.config import Config, leaves, option, read_config, stores
from coincide_pl.reporting.costs import Costs, costs, selection_file
from coincide_pl.reporting.lmms_results import FOLDER, lmms_outcomes, lmms_results
from coincide_pl.reporting.stages import STAGES, Clock
from coincide_pl.selection import Selection

RECIPE = (
    *("model", "data.batch_size", "data.max_tokens", "data.max_length"),
    *("trainer.max_epochs", "trainer.max_steps", "trainer.precision", "trainer.devices"),
    *("trainer.num_nodes", "trainer.gradient_clip_val", "trainer.accumulate_grad_batches"),
    "trainer.limit_train_batches",
)
"""Options of `fit` that runs must share to be compared, and whole parts of its config; data have
fingerprints."""
START = "model.pretrained"
"""One of these, the path of the start; where a fingerprint of its content is noted, that counts."""


@dataclass(frozen=True)
class FinishedRun:
    """A run that was fitted and tested; `load` reads it.

    Attributes:
        place: directory of the run (`trainer.default_root_dir`), or W&B's file of its fit.
        selector: class name of the selector.
        options: hyperparameters of the selector, its seed left out.
        signals: names of the directories whose signals the selection read.
        fraction: share of the training data that was selected, in (0, 1].
        data: fingerprint of the training data.
        start: fingerprint of the checkpoint that training started from, if noted.
        seed: seed of the run (`seed_everything`).
        recipe: options that `RECIPE` names, by dotted name.
        scores: score by task, in [0, 1].
        counts: number of questions by task.
        questions: metric, and fingerprint of the test data.
        seconds: seconds by stage, tests left out; empty where it is not known.
        whole: whether the cost of all that the selection rests on is known.
        answers: file that tells what each answer is worth; of lmms-eval, its folder.
    """

    place: Path
    selector: str
    options: Config
    signals: str
    fraction: float
    data: str
    start: str | None
    seed: int
    recipe: Config
    scores: dict[str, float]
    counts: dict[str, int]
    questions: str
    seconds: dict[str, float]
    whole: bool
    answers: Path

    @classmethod
    def load(cls, directory: str | Path, clock: Clock = "wall") -> FinishedRun:
        """Read a run's directory.

        Args:
            directory: directory of the run.
            clock: by which its costs count.

        Raises:
            CoincideError: something that `fit` and `test` leave there is missing or damaged.
        """
        folder = Path(directory)
        results = _results(folder)
        config = read_config(folder / "fit.yaml")
        file = selection_file(folder, config)
        chosen, noted = Selection.load(file), Inputs.load(folder)
        if noted and noted.selection and noted.selection != chosen.fingerprint:
            raise CoincideError(f"{file}: not what was trained on; run `coincide fit` again")
        with reading(folder / "fit.yaml", "run `coincide fit` again"):
            return cls.of(
                folder,
                folder / (FOLDER if results.metric == FOLDER else ANSWERS),
                results,
                config,
                chosen.description,
                noted.model if noted else None,
                costs(folder, config, clock),
            )

    @classmethod
    def of(
        cls,
        place: Path,
        answers: Path,
        results: Results,
        config: Config,
        chosen: Config,
        start: str | None,
        costs: Costs,
    ) -> FinishedRun:
        """Put together what was noted of a run.

        Args:
            place: directory of the run, or W&B's file of its fit.
            answers: file with the `task` and `outcome` of each question, a line each.
            results: scores of the test.
            config: config of `fit`.
            chosen: `description` of the selection.
            start: fingerprint of the checkpoint that training started from, if noted.
            costs: time by stage.
        """
        options = dict(chosen["selector"]["init_args"])
        options.pop("seed", None)
        if not all(0 <= seconds < math.inf for seconds in costs.seconds.values()):
            raise ValueError("no numbers of seconds")
        return cls(
            place,
            printable(chosen["selector"]["class_path"].rpartition(".")[2]),
            options,
            ", ".join(store.name for store in stores(config, Path())),
            chosen["count"] / chosen["pool_size"],
            chosen["made_from"]["data"],
            start,
            int(option(config, "seed_everything") or 0),
            {
                name: value.rpartition(".")[2] if name.endswith("class_path") else value
                for part in RECIPE
                for name, value in leaves(config, part).items()
            },
            results.scores,
            results.counts,
            f"{results.metric} {results.data}",
            costs.seconds,
            costs.whole,
            answers,
        )

    @cached_property
    def correct(self) -> Correct | None:
        """Worth of each answer by task, float32 [counts], in the data's order.

        A task whose score is not their mean is left out; None where no other is, or where answers
        were not kept.

        Raises:
            CoincideError: the file of answers is damaged, or of another test.
        """
        if self.answers.is_dir():
            found = lmms_outcomes(self.answers.parent)
        elif self.answers.is_file():
            found = self._outcomes()
        else:
            return None
        worth = {task: np.array(outcomes, np.float32) for task, outcomes in found.items()}
        means = {
            task: own
            for task, own in worth.items()
            if abs(float(own.mean()) - self.scores[task]) < 1e-4
        }
        return means or None

    def _outcomes(self) -> dict[str, list[float]]:
        """What the file of answers says, by task."""
        found: dict[str, list[float]] = {task: [] for task in self.counts}
        with reading(self.answers, "run `coincide test` again"):
            for line in self.answers.read_text().splitlines():
                answer = json.loads(line)
                found[answer["task"]].append(float(answer["outcome"]))
        if {task: len(scores) for task, scores in found.items()} != self.counts:
            raise CoincideError(f"{self.answers}: not of the test in its results; test again")
        return found


def is_run(folder: Path) -> bool:
    """Whether a stage has left something in a directory that a comparison reads."""
    names = (STAGES, "fit.yaml", "selection.safetensors", RESULTS, FOLDER)
    return any((folder / name).exists() for name in names)


def _results(folder: Path) -> Results:
    """Scores of `coincide test`; where there are none, those of lmms-eval."""
    found = None if (folder / RESULTS).is_file() else lmms_results(folder)
    return found or Results.load(folder)
