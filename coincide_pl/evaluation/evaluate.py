"""The callback that scores what a test generates, by task, and writes it down."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from torch import distributed

from coincide_pl.data.collation import Batch
from coincide_pl.data.records import Records
from coincide_pl.errors import CoincideError
from coincide_pl.evaluation.metrics import AnswerMetric, ExactMatch
from coincide_pl.files import append, write_text


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
    ratios = [scores[task] / score for task, score in base.items() if score > 0]
    if not ratios:
        raise CoincideError(f"{path}: 0 in every task; nothing was learned")
    return sum(ratios) / len(ratios)


class Evaluate(lightning.Callback):
    """Scores the answers that a test generates, logs them, and writes two files.

    They lie in the trainer's `default_root_dir`. `results.json`: `scores` by task, `counts` of the
    questions, `details` where the metric has some, and fingerprints of the model and the test data.
    `answers.jsonl`: a line for each question in the data's order, with `id`, `task`, `answer`,
    `truth` and `outcome`, what the metric makes of it. A test that was interrupted goes on.
    """

    answers: dict[int, tuple[str, str, str]]
    kept: KeptAnswers

    def __init__(self, metric: AnswerMetric | None = None, full: str | None = None) -> None:
        """Scores alone, or related to a run's on all data.

        Args:
            metric: how answers are scored (default: `ExactMatch`).
            full: directory of the tested run on all data; then `relative`, the mean over the tasks
                of score / its score, is logged and written as well, for a sweep to maximise.
        """
        self.metric = metric or ExactMatch()
        self.full = full

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Finds the tasks, and the answers that an interrupted test of the same left."""
        if stage != "test":
            return
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        self.metric.reset()
        self.metric.tasks = sorted({source or "all" for source in data.test_records.sources})
        root = None if trainer.fast_dev_run else Path(trainer.default_root_dir)  # type: ignore[attr-defined]
        self.kept = KeptAnswers(root, answering(data, pl_module), trainer.global_rank)
        self.answers = self.kept.load()
        trainer.strategy.barrier("answers read")
        data.rows_answered = np.zeros(len(data.test_records), bool)
        data.rows_answered[list(self.answers)] = True

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps a batch's answers."""
        told = zip(outputs["answers"], batch.answers, batch.sources, strict=True)
        new = dict(zip(batch.rows.tolist(), told, strict=True))
        self.answers.update(new)
        self.kept.add(new)

    def on_test_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Puts the processes' answers together, scores them, logs and writes."""
        if trainer.world_size > 1:
            parts: list[dict[int, tuple[str, str, str]]] = [{}] * trainer.world_size
            distributed.all_gather_object(parts, self.answers)
            self.answers = {row: own for part in parts for row, own in part.items()}
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        records: Records = data.test_records
        rows = sorted(self.answers)
        asked = [records[row] for row in rows]
        answers, truths, tasks = zip(*(self.answers[row] for row in rows), strict=True)
        groups = [self.metric.group(one.id, next(iter(one.images), None)) for one in asked]
        self.metric.sync_on_compute = False  # every process has all answers
        self.metric.update(answers, truths, tasks, groups)
        scores = {name: float(value) for name, value in self.metric.compute().items()}
        if self.full is not None:
            scores["relative"] = relative_performance(scores, self.full, records.fingerprint)
        details = self.metric.all_details()
        figures = {f"{task} {n}": x for task, own in details.items() for n, x in own.items()}
        for name, value in {**scores, **figures}.items():
            pl_module.log(f"test/{name}", value, rank_zero_only=True)
        if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            module: Any = pl_module
            content = {
                "metric": type(self.metric).__name__,
                "scores": scores,
                "counts": self.metric.counts(),
                **({"details": details} if details else {}),
                "model": module.fingerprint,
                "data": records.fingerprint,
            }
            lines = [
                {"id": one.id, "task": task, "answer": answer, "truth": truth}
                for one, task, answer, truth in zip(asked, tasks, answers, truths, strict=True)
            ]
            for line in lines:
                line["outcome"] = self.metric.outcome(line["answer"], line["truth"])
            root = Path(trainer.default_root_dir)
            text = (json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
            write_text(root / "answers.jsonl", text)
            write_text(root / "results.json", json.dumps(content, indent=1))
        trainer.strategy.barrier("answers written")
        self.kept.forget()


class KeptAnswers:
    """Answers of a test that goes on, one file for each process; a later start reads them all."""

    def __init__(self, root: Path | None, made_from: dict[str, Any], rank: int) -> None:
        """Touches nothing yet.

        Args:
            root: the run's directory; None keeps nothing.
            made_from: everything that the answers depend on.
            rank: of this process.
        """
        self.root, self.rank = root, rank
        self._head, self._begun = json.dumps(made_from, sort_keys=True), False

    def load(self) -> dict[int, tuple[str, str, str]]:
        """What is there by row: answer, truth, task; what other tests left counts as absent."""
        found: dict[int, tuple[str, str, str]] = {}
        for path in sorted(self.root.glob(".answers.*.jsonl")) if self.root else ():
            head, *lines = path.read_text(errors="replace").split("\n")
            if head != self._head:
                continue
            for line in lines[:-1]:  # the last one has no end: it is empty, or was cut
                content, _, check = line.rpartition("\t")
                if check == checksum(content):  # else damaged: it is answered again
                    row, answer, truth, task = json.loads(content)
                    found[row] = (answer, truth, task)
        return found

    def add(self, answers: dict[int, tuple[str, str, str]]) -> None:
        """Writes some more, after what is there and whole."""
        if self.root is None:
            return
        path = self.root / f".answers.{self.rank}.jsonl"
        if not self._begun:
            old = path.read_text(errors="replace") if path.is_file() else ""
            fits = old.startswith(self._head + "\n")
            write_text(path, [old[: old.rindex("\n") + 1] if fits else self._head + "\n"])
            self._begun = True
        lines = (json.dumps([row, *told]) for row, told in answers.items())
        append(path, "".join(f"{line}\t{checksum(line)}\n" for line in lines))

    def forget(self) -> None:
        """Removes all processes' files."""
        if self.root is not None and self.rank == 0:
            for path in self.root.glob(".answers.*.jsonl"):
                path.unlink()


def checksum(line: str) -> str:
    """Tells a damaged line."""
    return f"{zlib.crc32(line.encode()):08x}"


def answering(data: Any, module: Any) -> dict[str, Any]:
    """What answers depend on."""
    return {
        "data": data.test_records.fingerprint,
        "model": module.fingerprint,
        "max_length": data.max_length,
        "max_new_tokens": getattr(module, "max_new_tokens", None),
        "dtype": getattr(module, "weights", None),
    }
