"""Results of lmms-eval, for the benchmarks that it runs and `coincide test` does not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coincide_pl.errors import CoincideError

FOLDER = "lmms_eval"
"""Where in a run's directory lmms-eval's `--output_path` should lead."""
SCALES = {
    "mme_perception_score": 2000.0,
    "mme_percetion_score": 2000.0,  # so spelt for a while
    "mme_cognition_score": 800.0,
    "gpt_eval_score": 100.0,
    "llava_bench": 100.0,
}
"""The largest value of what is not in [0, 1]."""
FIRST = ("pope_f1_score", "exact_match", "accuracy", "acc")
"""Of several figures of a task, the first of these stands for it; else its first."""


def lmms_results(folder: Path) -> dict[str, Any] | None:
    """Scores by task of the newest results in a run's directory, in the form of `results.json`.

    MME's two parts are two tasks. What is on another scale is divided by its largest value.

    Args:
        folder: the run's directory.

    Returns:
        `scores`, `counts` and `data`; None where there are none.

    Raises:
        CoincideError: a file that can't be read.
    """
    files = sorted((folder / FOLDER).rglob("*results.json"))
    if not files:
        return None
    scores: dict[str, float] = {}
    counts: dict[str, int] = {}
    try:
        for path in files:  # names begin with the date: a later one counts
            content = json.loads(path.read_text())
            for task, figures in content["results"].items():
                number = content.get("n-samples", {}).get(task, {}).get("effective", 0)
                for name, value in main_figures(task, figures).items():
                    scores[name], counts[name] = value, int(number)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CoincideError(f"{path}: not a results file of lmms-eval") from error
    return {"metric": FOLDER, "scores": scores, "counts": counts, "data": FOLDER}


def main_figures(task: str, figures: dict[str, Any]) -> dict[str, float]:
    """What stands for a task, by name, in [0, 1]."""
    known = {
        name.partition(",")[0]: float(value)
        for name, value in figures.items()
        if isinstance(value, int | float) and "_stderr" not in name
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
