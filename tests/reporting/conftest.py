"""Hand-made directories of finished runs."""

import json

import numpy as np
import pytest
import yaml
from notes import inputs_of, stages_of

from coincide_pl.selection import Selection


@pytest.fixture
def finished(tmp_path):
    """Writes a run's directory: its choice, recipe, scores, answers and stages."""

    def write(
        name, selector, correct, stages, seed=0, options=(), fraction=0.2, signals=None, **others
    ):
        folder = tmp_path / name
        folder.mkdir()
        stages_of(folder, stages)
        config = {
            "seed_everything": seed,
            "model": {"class_path": "TargetModule", "init_args": {"pretrained": "base"}},
            "data": {"init_args": {"batch_size": 64, "signals": signals}},
            "trainer": {"max_epochs": others.pop("max_epochs", 2), "devices": "auto"},
        }
        (folder / "fit.yaml").write_text(yaml.safe_dump(config))
        inputs_of(folder, {signals: "s"} if signals else {}, others.pop("start", "m"))
        made_from = {"data": others.pop("data", "d"), **({"signals": "s"} if signals else {})}
        words = {"class_path": f"x.{selector}", "init_args": {**dict(options), "seed": seed}}
        Selection(np.arange(round(100 * fraction)), 100, words, made_from).save(
            folder / "selection.safetensors"
        )
        scores = {task: float(np.mean(found)) for task, found in correct.items()}
        counts = {task: len(found) for task, found in correct.items()}
        content = {"scores": {**scores, "mean": 0}, "counts": counts, "data": "q", **others}
        (folder / "results.json").write_text(json.dumps(content))
        lines = [
            json.dumps({"task": task, "outcome": int(score)})
            for task, found in correct.items()
            for score in found
        ]
        (folder / "answers.jsonl").write_text("\n".join(lines) + "\n")
        return str(folder)

    return write
