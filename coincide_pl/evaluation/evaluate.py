"""The callback that scores what a test generates, by task, and writes it down."""

from __future__ import annotations

import json
import logging
import zlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import numpy as np
from torch import distributed

from coincide_pl.data.collation import Batch
from coincide_pl.data.records import Records
from coincide_pl.data.served import ServedData, served
from coincide_pl.errors import CoincideError, ConfigError, DataError
from coincide_pl.evaluation.metrics import AnswerMetric, ExactMatch
from coincide_pl.evaluation.results import ANSWERS, RESULTS, Results
from coincide_pl.files import append, run_directory, write_text

log = logging.getLogger(__name__)

Answer = tuple[str, str, str]
"""A generated answer, the truth and the task of its question."""


def relative_performance(scores: dict[str, float], full: str | Path, questions: str) -> float:
    """The mean over tasks of score / score on all data.

    Args:
        scores: score by task.
        full: directory of the tested run on all data.
        questions: fingerprint of the test data.

    Raises:
        CoincideError: there is no such result, or it is of other questions.
    """
    base, path = Results.load(full), Path(full) / RESULTS
    if base.data != questions:
        raise CoincideError(f"{path}: of other questions than these")
    ratios = [scores[task] / score for task, score in base.scores.items() if score > 0]
    if not ratios:
        raise CoincideError(f"{path}: 0 in every task; nothing was learned")
    return sum(ratios) / len(ratios)


def check_truths(metric: AnswerMetric, questions: Records) -> None:
    """Refuse questions whose truth a metric can't read, before any answer is generated.

    Raises:
        DataError: naming the first of them.
    """
    bad = [row for row, truth in enumerate(questions.answers) if not metric.reads_truth(truth)]
    if bad:
        more = f", nor are those of {len(bad) - 1} others" if bad[1:] else ""
        error = DataError(
            f"{questions.name(bad[0])}: the truth {questions.answers[bad[0]][:80]!r} is not "
            f"{metric.truths}, as {type(metric).__name__} reads them{more}; mend them, or name "
            "another --trainer.callbacks.metric"
        )
        error.shared = True
        raise error


class Evaluate(lightning.Callback):
    """Callback that scores the answers of a test, logs the scores, and writes two files.

    They lie in the trainer's `default_root_dir`. `results.json`: `scores` by task, `counts` of the
    questions, `details` where the metric has some, `unread` answers where there are some, and
    fingerprints of the model and the test data.
    `answers.jsonl`: a line for each question in the data's order, with `id`, `task`, `answer`,
    `truth` and `outcome`, what the metric makes of it. A test that was interrupted goes on.
    """

    answers: dict[int, Answer]
    kept: KeptAnswers

    def __init__(self, metric: AnswerMetric | None = None, full: str | None = None) -> None:
        """Keep scores, alone or related to those of a run on all data.

        Args:
            metric: metric that scores the answers (default: `ExactMatch`).
            full: directory of the tested run on all data; then `relative`, the mean over the tasks
                of score / its score, is logged and written as well, for a sweep to maximize.

        Raises:
            ConfigError: the metric's constructor leaves out that of its base class.
        """
        if metric is not None and not hasattr(metric, "tasks"):
            name = f"{type(metric).__module__}.{type(metric).__qualname__}"
            raise ConfigError(f"{name}: its __init__ must call super().__init__()")
        self.metric = metric or ExactMatch()
        self.full = full

    def setup(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, stage: str
    ) -> None:
        """Finds the tasks, and the answers that an interrupted test of the same left."""
        if stage != "test":
            return
        data = served(trainer)
        check_truths(self.metric, data.test_records)
        self.metric.reset()
        self.metric.tasks = data.test_records.source_names
        made_from = answering(data, pl_module)
        self.kept = KeptAnswers(run_directory(trainer), made_from, trainer.global_rank)
        self.answers = self.kept.load()
        trainer.strategy.barrier("answers read")
        answered = np.zeros(len(data.test_records), bool)
        answered[list(self.answers)] = True
        data.rows_answered = answered

    def on_test_batch_end(
        self,
        trainer: lightning.Trainer,
        pl_module: lightning.LightningModule,
        outputs: Any,  # Lightning's type of it has no keys
        batch: Batch,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keeps a batch's answers."""
        answers = zip(outputs["answers"], batch.answers, batch.sources, strict=True)
        new = dict(zip(batch.rows.tolist(), answers, strict=True))
        self.answers.update(new)
        self.kept.add(new)

    def on_test_epoch_end(
        self, trainer: lightning.Trainer, pl_module: lightning.LightningModule
    ) -> None:
        """Puts the processes' answers together, scores them, logs and writes."""
        if trainer.world_size > 1:
            parts: list[dict[int, Answer]] = [{}] * trainer.world_size
            distributed.all_gather_object(parts, self.answers)
            self.answers = {row: own for part in parts for row, own in part.items()}
        records = served(trainer).test_records
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
        root = run_directory(trainer)
        if root is not None and trainer.is_global_zero:
            self._write(root, [one.id for one in asked], answers, truths, tasks)
            Results(
                type(self.metric).__name__,
                scores,
                self.metric.counts(),
                details,
                self._unread(answers, tasks),
                str(pl_module.fingerprint),
                records.fingerprint,
            ).save(root)
        trainer.strategy.barrier("answers written")
        self.kept.forget()

    def _write(self, root: Path, ids: Sequence[str], *columns: Sequence[str]) -> None:
        """Writes each question's id, answer, truth and task, and what the answer is worth."""
        lines = [
            {"id": identity, "task": task, "answer": answer, "truth": truth}
            | {"outcome": self.metric.outcome(answer, truth)}
            for identity, answer, truth, task in zip(ids, *columns, strict=True)
        ]
        write_text(root / ANSWERS, (json.dumps(line, ensure_ascii=False) + "\n" for line in lines))

    def _unread(self, answers: Sequence[str], tasks: Sequence[str]) -> dict[str, int]:
        """Number of answers that the metric can't read, by task; it is said, too."""
        pairs = zip(answers, tasks, strict=True)
        unread = Counter(task for answer, task in pairs if not self.metric.reads_answer(answer))
        if unread:
            name, count = type(self.metric).__name__, unread.total()
            log.warning("%s can't read %d of %d answers", name, count, len(answers))
        return dict(sorted(unread.items()))


class KeptAnswers:
    """Answers of a test under way, in a file for each process; a later start reads them all."""

    def __init__(self, root: Path | None, made_from: dict[str, object], rank: int) -> None:
        """Remembers where the answers lie; nothing is read or written yet.

        Args:
            root: directory of the run; None keeps nothing.
            made_from: everything that the answers depend on.
            rank: number of this process.
        """
        self.root, self.rank = root, rank
        self._head, self._begun = json.dumps(made_from, sort_keys=True), False

    def load(self) -> dict[int, Answer]:
        """Answers that are there, by row; what other tests left counts as absent."""
        found: dict[int, Answer] = {}
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

    def add(self, answers: dict[int, Answer]) -> None:
        """Writes some answers more, after those that are there and whole."""
        if self.root is None:
            return
        path = self.root / f".answers.{self.rank}.jsonl"
        if not self._begun:
            old = path.read_text(errors="replace") if path.is_file() else ""
            fits = old.startswith(self._head + "\n")
            write_text(path, [old[: old.rindex("\n") + 1] if fits else self._head + "\n"])
            self._begun = True
        lines = (json.dumps([row, *answer]) for row, answer in answers.items())
        append(path, "".join(f"{line}\t{checksum(line)}\n" for line in lines))

    def forget(self) -> None:
        """Removes the files of all processes."""
        if self.root is not None and self.rank == 0:
            for path in self.root.glob(".answers.*.jsonl"):
                path.unlink()


def checksum(line: str) -> str:
    """CRC-32 of a line, which tells a damaged one."""
    return f"{zlib.crc32(line.encode()):08x}"


def answering(data: ServedData, module: lightning.LightningModule) -> dict[str, object]:
    """Everything that the answers of a test depend on, by name."""
    return {
        "data": data.test_records.fingerprint,
        "model": module.fingerprint,
        "max_length": data.max_length,
        "max_new_tokens": getattr(module, "max_new_tokens", None),
        "dtype": getattr(module, "weights_dtype", None),
    }
