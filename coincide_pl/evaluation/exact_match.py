"""Exact match of generated answers, per task: the metric, and the callback that keeps the score."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from torch import Tensor, distributed
from torchmetrics import Metric

from coincide_pl.data.collation import Batch
from coincide_pl.data.readers.reader import write_text
from coincide_pl.errors import CoincideError


class ExactMatch(Metric):
    """Share of answers equal to the truth, up to case, outer blanks and a final full stop."""

    correct: Tensor
    total: Tensor
    full_state_update = False

    def __init__(self, tasks: Sequence[str], **kwargs: Any) -> None:
        """Counts from zero.

        Args:
            tasks: names of the tasks, the same in every process.
            kwargs: of `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        self.tasks = list(tasks)
        for name in ("correct", "total"):
            zeros = torch.zeros(len(self.tasks), dtype=torch.int64)
            self.add_state(name, zeros, dist_reduce_fx="sum")

    def update(self, answers: Sequence[str], truths: Sequence[str], tasks: Sequence[str]) -> None:
        """Counts a batch: answer, truth and task of each sample."""
        for answer, truth, task in zip(answers, truths, tasks, strict=True):
            at = self.tasks.index(task)
            self.total[at] += 1
            self.correct[at] += plain(answer) == plain(truth)

    def compute(self) -> dict[str, Tensor]:
        """The share by task, float32, and `mean` over the tasks that have samples."""
        seen = self.total > 0
        share = self.correct / self.total.clamp(min=1)
        scores = {t: share[i] for i, t in enumerate(self.tasks) if seen[i]}
        return {**scores, "mean": share[seen].mean() if seen.any() else torch.tensor(0.0)}


def plain(answer: str) -> str:
    """An answer as it is compared."""
    return answer.strip().lower().removesuffix(".").rstrip()


def relative_performance(scores: dict[str, float], full: str | Path, questions: str) -> float:
    """The mean over tasks of score / score on all data.

    Args:
        scores: by task.
        full: directory of the tested run on all data.
        questions: fingerprint of the test data.

    Raises:
        CoincideError: there is no such result, or it is of other questions.
    """
    path = Path(full) / "results.json"
    try:
        content = json.loads(path.read_text())
        base = {task: float(content["scores"][task]) for task in content["counts"]}
        same = content["data"] == questions
    except FileNotFoundError as error:
        raise CoincideError(f"{path}: no results; run `coincide test` for all data") from error
    except (ValueError, KeyError, TypeError) as error:
        raise CoincideError(f"{path}: damaged; run `coincide test` again") from error
    if not same:
        raise CoincideError(f"{path}: of other questions than these")
    return sum(scores[task] / max(score, 1e-12) for task, score in base.items()) / len(base)


class Evaluate(lightning.Callback):
    """Scores the answers that a test generates, logs them, and writes two files.

    They lie in the trainer's `default_root_dir`. `results.json`: `scores` by task, `counts` of the
    questions, and fingerprints of the model and the test data. `answers.jsonl`: a line for each
    question in the data's order, with `id`, `task`, `answer`, `truth` and `score`.
    """

    metric: ExactMatch
    answers: dict[int, dict[str, Any]]

    def __init__(self, full: str | None = None) -> None:
        """Scores alone, or related to a run's on all data.

        Args:
            full: directory of the tested run on all data; then `relative`, the mean over the tasks
                of score / its score, is logged and written as well, for a sweep to maximise.
        """
        self.full = full

    def on_test_start(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Finds the tasks in the test records."""
        sources = trainer.datamodule.test_records.sources  # type: ignore[attr-defined]
        tasks = sorted({source or "all" for source in sources})
        self.metric = ExactMatch(tasks).to(pl_module.device)
        self.answers = {}

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Scores a batch."""
        told = zip(outputs["answers"], batch.answers, batch.sources, strict=True)
        for row, (answer, truth, task) in zip(batch.rows.tolist(), told, strict=True):
            score = int(plain(answer) == plain(truth))
            self.answers[row] = {"task": task, "answer": answer, "truth": truth, "score": score}
        self.metric.update(outputs["answers"], batch.answers, batch.sources)

    def on_test_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Combines the processes' counts, logs the scores and writes the files."""
        scores = {name: float(value) for name, value in self.metric.compute().items()}
        counts = self.metric.total.tolist()
        if trainer.world_size > 1:
            counts = trainer.strategy.reduce(self.metric.total, reduce_op="sum").tolist()
            parts: list[dict[int, dict[str, Any]]] = [{}] * trainer.world_size
            distributed.all_gather_object(parts, self.answers)
            self.answers = {row: answer for part in parts for row, answer in part.items()}
        if self.full is not None:
            data_of_test = trainer.datamodule.test_records.fingerprint  # type: ignore[attr-defined]
            scores["relative"] = relative_performance(scores, self.full, data_of_test)
        for name, value in scores.items():
            pl_module.log(f"test/{name}", value, rank_zero_only=True)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            module: Any = pl_module
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            content = {
                "scores": scores,
                "counts": dict(zip(self.metric.tasks, counts, strict=True)),
                "model": module.fingerprint,
                "data": data.test_records.fingerprint,
            }
            lines = [
                json.dumps({"id": data.test_records[row].id, **answer}, ensure_ascii=False) + "\n"
                for row, answer in sorted(self.answers.items())
            ]
            root = Path(trainer.default_root_dir)
            write_text(root / "answers.jsonl", "".join(lines))
            write_text(root / "results.json", json.dumps(content, indent=1))
