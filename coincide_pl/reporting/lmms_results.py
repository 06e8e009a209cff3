"""Results of lmms-eval, for the benchmarks that it runs and `coincide test` does not."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path

from coincide_pl.evaluation.results import Results
from coincide_pl.files import reading

FOLDER = "lmms_eval"
"""Folder in a run's directory that lmms-eval's `--output_path` should name."""
SCALES = {
    "mme_perception_score": 2000.0,
    "mme_percetion_score": 2000.0,  # so spelled for a while
    "mme_cognition_score": 800.0,
    "gpt_eval_score": 100.0,
    "llava_bench": 100.0,
}
"""Largest values of figures that are not in [0, 1]."""
FIRST = ("pope_f1_score", "exact_match", "accuracy", "acc")
"""Figures that stand for a task which has several, the first of these that is there."""


@dataclass(frozen=True)
class Figure:
    """A figure of lmms-eval that stands for a task.

    Attributes:
        name: as lmms-eval calls it, without its filter.
        value: as lmms-eval gives it.
        largest: its largest value.
        documents: file with the worth of each document, a line each; it need not be there.
        count: number of documents; 0 where it is not noted.
    """

    name: str
    value: float
    largest: float
    documents: Path
    count: int


def lmms_results(folder: Path) -> Results | None:
    """Scores by task of the newest results of lmms-eval in a run's directory.

    MME's two parts are two tasks. What is on another scale is divided by its largest value.

    Args:
        folder: directory of the run.

    Returns:
        The scores; None where there are none.

    Raises:
        CoincideError: a file can't be read.
    """
    if not result_files(folder):
        return None
    figures = newest(folder)
    scores = {name: figure.value / figure.largest for name, figure in figures.items()}
    counts = {name: figure.count for name, figure in figures.items()}
    return Results(FOLDER, scores, counts, data=FOLDER)


def lmms_outcomes(folder: Path) -> dict[str, list[float]]:
    """Worth of each document in [0, 1] by task, as `--log_samples` leaves them, by their numbers.

    Args:
        folder: directory of the run.

    Returns:
        Only tasks whose documents were logged, each with a number.

    Raises:
        CoincideError: a file can't be read.
    """
    found = {}
    for task, figure in newest(folder).items():
        if not figure.documents.is_file():
            continue
        with reading(figure.documents, "run lmms-eval again, or delete this file"):
            documents = map(json.loads, figure.documents.read_text().splitlines())
            worth = {int(one["doc_id"]): _worth(one.get(figure.name)) for one in documents}
        numbers = [worth[number] for number in sorted(worth)]
        if numbers and None not in numbers:
            found[task] = [number / figure.largest for number in numbers if number is not None]
    return found


def result_files(folder: Path) -> list[Path]:
    """Files of results in a run's directory; their names begin with the date."""
    return sorted((folder / FOLDER).rglob("*results.json"))


def newest(folder: Path) -> dict[str, Figure]:
    """The newest figures that stand for tasks, by task; a task with several has several names.

    Raises:
        CoincideError: a file can't be read.
    """
    found: dict[str, Figure] = {}
    for path in result_files(folder):
        with reading(path, "run lmms-eval again, or delete this file"):
            content = json.loads(path.read_text())
            for task, figures in content["results"].items():
                number = int(content.get("n-samples", {}).get(task, {}).get("effective", 0))
                name = path.name.replace("results.json", f"samples_{task}.jsonl")
                found |= main_figures(task, figures, path.with_name(name), number)
    return found


def main_figures(
    task: str, figures: dict[str, object], documents: Path, count: int
) -> dict[str, Figure]:
    """The figures that stand for a task, by name."""
    known = {
        name.partition(",")[0]: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and math.isfinite(value) and "_stderr" not in name
    }
    if not known:
        return {}
    parts = [name for name in known if name.startswith("mme_")]
    chosen = parts or [next((name for name in FIRST if name in known), next(iter(known)))]
    found = {}
    for name in chosen:
        largest = next((SCALES[key] for key in SCALES if name.startswith(key)), 1.0)
        largest = 100.0 if largest == 1.0 and known[name] > 1 else largest
        label = name.removesuffix("_score").replace("percetion", "perception")
        own = label if len(chosen) > 1 else task
        found[own] = Figure(name, known[name], largest, documents, count)
    return found


def _worth(value: object) -> float | None:
    """A document's worth: a number, or the `score` of what its task keeps of it."""
    if isinstance(value, dict):
        value = value.get("score")
    return float(value) if isinstance(value, int | float) and math.isfinite(value) else None
