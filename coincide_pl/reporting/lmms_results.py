"""Results of lmms-eval, for the benchmarks that it runs and `coincide test` does not."""

from __future__ import annotations

import json
import math
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
    files = sorted((folder / FOLDER).rglob("*results.json"))
    scores: dict[str, float] = {}
    counts: dict[str, int] = {}
    for path in files:  # names begin with the date: a later one counts
        with reading(path, "run lmms-eval again, or delete this file"):
            content = json.loads(path.read_text())
            for task, figures in content["results"].items():
                number = content.get("n-samples", {}).get(task, {}).get("effective", 0)
                for name, value in main_figures(task, figures).items():
                    scores[name], counts[name] = value, int(number)
    return Results(FOLDER, scores, counts, data=FOLDER) if files else None


def main_figures(task: str, figures: dict[str, object]) -> dict[str, float]:
    """The figures that stand for a task, by name, in [0, 1]."""
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
        found[label if len(chosen) > 1 else task] = known[name] / largest
    return found
