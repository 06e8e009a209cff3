"""Scores of a test as its run's directory keeps them, in `results.json`."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from coincide_pl.errors import CoincideError
from coincide_pl.evaluation.inputs import Inputs
from coincide_pl.files import reading, write_text

RESULTS = "results.json"
ANSWERS = "answers.jsonl"
"""File beside it with every question, its answer, its truth and what the answer is worth."""


@dataclass(frozen=True)
class Results:
    """Scores of a tested model.

    Attributes:
        metric: class name of the metric, if noted.
        scores: score by task, in [0, 1]; in the file, their `mean`, and `relative` where that was
            asked for, as well.
        counts: number of questions by task.
        details: further figures of tasks, by task and name.
        unread: number of answers that no rule of the metric reads, by task, where there are any.
        model: fingerprint of the tested checkpoint, if noted.
        data: fingerprint of the questions.
    """

    metric: str | None
    scores: dict[str, float]
    counts: dict[str, int]
    details: dict[str, dict[str, float]] = field(default_factory=dict)
    unread: dict[str, int] = field(default_factory=dict)
    model: str | None = None
    data: str = ""

    def save(self, directory: Path) -> None:
        """Write them in a run's directory."""
        optional = {"details", "unread"}
        content = {k: v for k, v in asdict(self).items() if v or k not in optional}
        write_text(directory / RESULTS, json.dumps(content, indent=1))

    @classmethod
    def load(cls, directory: str | Path) -> Results:
        """Read them from a run's directory.

        Raises:
            CoincideError: there are none, they are damaged, or they are of other weights than those
                that the run's fit has left.
        """
        path = Path(directory) / RESULTS
        if not path.is_file():
            raise CoincideError(f"{path}: no results; run `coincide test` for it")
        with reading(path, "run `coincide test` again"):
            results = cls.of(json.loads(path.read_text()))
        fitted = Inputs.load(Path(directory))
        if fitted is not None and results.model and fitted.trained != "unknown":
            if fitted.trained is None:
                raise CoincideError(f"{path}: its fit has begun again; end it, and test again")
            if fitted.trained != results.model:
                raise CoincideError(
                    f"{path}: of other weights than the fit has left; run `coincide test` again"
                )
        return results

    @classmethod
    def of(cls, content: dict[str, Any]) -> Results:
        """Build them from the content of `results.json`.

        Raises:
            Exception: one of `files.UNUSABLE`, where it is other content.
        """
        counts = {str(task): int(count) for task, count in content["counts"].items()}
        scores = {task: float(content["scores"][task]) for task in counts}
        if not counts or min(counts.values()) < 1 or not all(map(math.isfinite, scores.values())):
            raise ValueError("no task, or one without a question or a score")
        return cls(
            content.get("metric"),
            scores,
            counts,
            content.get("details") or {},
            {str(task): int(count) for task, count in (content.get("unread") or {}).items()},
            content.get("model"),
            str(content["data"]),
        )
