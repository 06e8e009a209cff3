"""Metrics of generated answers, as the benchmarks define them; a class each.

Each question gets an outcome from its answer and the truth; a task's score is made of the outcomes
of its questions, in [0, 1]. Details are further figures of a task.
"""

from __future__ import annotations

import hashlib
import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from coincide_pl.errors import DataError


class AnswerMetric(Metric):
    """A metric of answers: keeps each question's outcome, task and group, over all batches.

    A subclass says what an outcome is (`outcome`), and a task's score if that is not the mean of
    its outcomes (`score`).

    Attributes:
        truths: noun of the truths that the metric reads, for messages.
    """

    truths: ClassVar[str] = "text"

    outcomes: list[Tensor]
    places: list[Tensor]
    groups: list[Tensor]
    full_state_update = False

    def __init__(self, tasks: Sequence[str] = (), **kwargs: Any) -> None:
        """Start without questions.

        Args:
            tasks: names of the tasks, the same in every process; a test sets them from its data.
            kwargs: arguments of `torchmetrics.Metric`.
        """
        super().__init__(**kwargs)
        self.tasks = list(tasks)
        for name in ("outcomes", "places", "groups"):
            self.add_state(name, [], dist_reduce_fx="cat")

    @abstractmethod
    def outcome(self, answer: str, truth: str) -> float:
        """The worth of a generated answer, given the truth."""

    def reads_truth(self, truth: str) -> bool:
        """Whether answers can be scored against a truth; by default, against any text."""
        return bool(truth.strip())

    def reads_answer(self, answer: str) -> bool:
        """Whether a rule of the metric reads an answer; the others are counted beside the score."""
        return bool(answer.strip())

    def group(self, record_id: str, image: str | None) -> str:
        """Name of the group that a question belongs to; by default each question is its own."""
        return record_id

    def score(self, outcomes: Tensor, groups: Tensor) -> float:
        """Score of a task, from outcomes float32 [n] and groups int64 [n] of its questions."""
        return float(outcomes.mean())

    def details(self, outcomes: Tensor, groups: Tensor) -> dict[str, float]:
        """Further figures of a task by name, from the same."""
        return {}

    def update(
        self,
        answers: Sequence[str],
        truths: Sequence[str],
        tasks: Sequence[str],
        groups: Sequence[str] | None = None,
    ) -> None:
        """Add a batch: answer, truth, task and group of each question.

        Raises:
            DataError: a truth is none that the metric reads.
        """
        for truth in truths:
            if not self.reads_truth(truth):
                raise DataError(f"{type(self).__name__}: the truth {truth!r} is not {self.truths}")
        groups = [""] * len(answers) if groups is None else groups
        worth = [self.outcome(a, t) for a, t in zip(answers, truths, strict=True)]
        device = self.device
        self.outcomes.append(torch.tensor(worth, dtype=torch.float32, device=device))
        self.places.append(torch.tensor([self.tasks.index(t) for t in tasks], device=device))
        self.groups.append(torch.tensor([_number(g) for g in groups], device=device))

    def compute(self) -> dict[str, Tensor]:
        """Scores by task, float32, and their `mean` over the tasks that have questions."""
        scores = {
            task: torch.tensor(self.score(outcomes, groups))
            for task, (outcomes, groups) in self._by_task().items()
        }
        mean = torch.stack(list(scores.values())).mean() if scores else torch.tensor(0.0)
        return {**scores, "mean": mean}

    def counts(self) -> dict[str, int]:
        """Number of questions by task; call it where `compute` has gathered them."""
        return {task: len(outcomes) for task, (outcomes, _) in self._by_task().items()}

    def all_details(self) -> dict[str, dict[str, float]]:
        """Further figures by task, of tasks that have any."""
        found = {task: self.details(*own) for task, own in self._by_task().items()}
        return {task: details for task, details in found.items() if details}

    def _by_task(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Outcomes and groups of the questions, by task."""
        if not len(self.outcomes):
            return {}
        outcomes, places, groups = (
            dim_zero_cat(state) for state in (self.outcomes, self.places, self.groups)
        )
        return {
            task: (outcomes[places == i], groups[places == i])
            for i, task in enumerate(self.tasks)
            if (places == i).any()
        }


class ExactMatch(AnswerMetric):
    """Share of answers equal to the truth, up to case, outer blanks and a final full stop."""

    def outcome(self, answer: str, truth: str) -> float:
        """1 for an answer that equals the truth, else 0."""
        return float(plain(answer) == plain(truth))


class VQAAccuracy(AnswerMetric):
    """VQA accuracy against ten annotators (Antol et al., 2015, arXiv 1505.00468).

    An answer is as right as min(1, matches / 3) against nine of the ten, averaged over which one is
    left out: 0.3, 0.6, 0.9 and 1 for 1, 2, 3 and more matches. Answers are compared without case,
    articles, punctuation and with numbers as digits. The truth holds one annotator's answer a line.
    (VQAv2, VizWiz, TextVQA)
    """

    truths = "an annotator's answer a line"

    def outcome(self, answer: str, truth: str) -> float:
        """The answer's accuracy against the annotators, in [0, 1]."""
        truths = [line.strip() for line in truth.splitlines() if line.strip()]
        answer = answer.replace("\n", " ").replace("\t", " ").strip()
        truths = [normalized(line) for line in truths]
        matches = [line == normalized(answer) for line in truths]
        if len(truths) == 1:
            return float(matches[0])
        total = sum(matches)
        return sum(min(1.0, (total - own) / 3) for own in matches) / max(1, len(truths))


class YesNo(AnswerMetric):
    """Yes-or-no questions about objects, as POPE scores them (Li et al., 2023, arXiv 2305.10355).

    An answer is read as no if its first sentence has the word `no` or `not`, else as yes; answers
    that have none of these words, nor `yes`, are counted. A task's score is F1 of yes; accuracy,
    precision, recall and the share of yes are its details.
    """

    truths = "yes or no"

    def reads_truth(self, truth: str) -> bool:
        """Whether it is yes or no."""
        return plain(truth) in ("yes", "no")

    def reads_answer(self, answer: str) -> bool:
        """Whether its first sentence has one of the words yes, no and not."""
        return bool({"yes", "no", "not"} & first_words(answer))

    def outcome(self, answer: str, truth: str) -> float:
        """A cell of the table of truths and answers: 2 * (truth is yes) + (answer is yes)."""
        return 2.0 * (plain(truth) == "yes") + said_yes(answer)

    def score(self, outcomes: Tensor, groups: Tensor) -> float:
        """F1 of yes; 0 where no yes is right."""
        return self.details(outcomes, groups)["f1"]

    def details(self, outcomes: Tensor, groups: Tensor) -> dict[str, float]:
        """Shares `accuracy`, `precision`, `recall`, `f1` and `yes_ratio`, each in [0, 1]."""
        right_no, wrong_yes, wrong_no, right_yes = (
            float((outcomes == code).sum()) for code in range(4)
        )
        precision = right_yes / max(1.0, right_yes + wrong_yes)
        recall = right_yes / max(1.0, right_yes + wrong_no)
        return {
            "accuracy": (right_no + right_yes) / len(outcomes),
            "precision": precision,
            "recall": recall,
            "f1": 2 * precision * recall / (precision + recall) if right_yes else 0.0,
            "yes_ratio": (right_yes + wrong_yes) / len(outcomes),
        }


class MME(AnswerMetric):
    """MME's two yes-or-no questions an image (Fu et al., 2023, arXiv 2306.13394).

    A task's score is half the sum of accuracy, over questions, and accuracy+, over images both of
    whose questions are right: 1/200 of the points that MME gives it. An answer with
    neither yes nor no among its first four letters is wrong, and counted.
    """

    truths = "yes or no"

    def reads_truth(self, truth: str) -> bool:
        """Whether it is yes or no."""
        return plain(truth) in ("yes", "no")

    def reads_answer(self, answer: str) -> bool:
        """Whether it begins with yes or no."""
        return beginning(answer) is not None

    def outcome(self, answer: str, truth: str) -> float:
        """1 for an answer that begins with the truth, else 0."""
        return float(beginning(answer) == plain(truth))

    def group(self, record_id: str, image: str | None) -> str:
        """The image, about which two questions are asked."""
        return image or record_id

    def score(self, outcomes: Tensor, groups: Tensor) -> float:
        """The mean of accuracy and accuracy+."""
        return sum(self.details(outcomes, groups).values()) / 2

    def details(self, outcomes: Tensor, groups: Tensor) -> dict[str, float]:
        """Shares `accuracy`, of questions, and `accuracy_plus`, of images, each in [0, 1]."""
        return {"accuracy": float(outcomes.mean()), "accuracy_plus": all_right(outcomes, groups)}


class MultipleChoice(AnswerMetric):
    """Share of right letters, as ScienceQA is scored in LLaVA's evaluation.

    The answer is its letter alone, or the letter before a full stop, a colon or a bracket, or the
    one in "The answer is X."; anything else is wrong, and counted. The truth is read likewise.
    """

    truths = "a letter"

    def reads_truth(self, truth: str) -> bool:
        """Whether it gives a letter."""
        return chosen_letter(truth) is not None

    def reads_answer(self, answer: str) -> bool:
        """Whether it gives a letter."""
        return chosen_letter(answer) is not None

    def outcome(self, answer: str, truth: str) -> float:
        """1 for an answer that gives the truth's letter, else 0."""
        letter = chosen_letter(answer)
        return float(letter is not None and letter == chosen_letter(truth))


class CircularChoice(MultipleChoice):
    """MMBench's circular evaluation (Liu et al., 2023, arXiv 2307.06281).

    A question is asked once for each rotation of its choices, under its index plus multiples of a
    million, and is right if all of these are.
    """

    def group(self, record_id: str, image: str | None) -> str:
        """The question's index without its rotation."""
        return str(int(record_id) % 1_000_000) if record_id.isdecimal() else record_id

    def score(self, outcomes: Tensor, groups: Tensor) -> float:
        """Share of questions that are right in every rotation."""
        return all_right(outcomes, groups)


def all_right(outcomes: Tensor, groups: Tensor) -> float:
    """Share of groups whose outcomes are all 1."""
    _, inverse = groups.unique(return_inverse=True)
    least = torch.ones(int(inverse.max()) + 1, device=outcomes.device)
    least.scatter_reduce_(0, inverse, outcomes, "amin")
    return float((least == 1).float().mean())


def plain(answer: str) -> str:
    """An answer in lower case, without outer blanks and a final full stop."""
    return answer.strip().lower().removesuffix(".").rstrip()


def said_yes(answer: str) -> bool:
    """Whether POPE's evaluation reads an answer as yes."""
    return not {"no", "not"} & first_words(answer)


def first_words(answer: str) -> set[str]:
    """Words of an answer's first sentence, in lower case."""
    first = answer.strip().partition(".")[0].replace(",", "")
    return set(first.lower().split())


def beginning(answer: str) -> str | None:
    """Which of yes and no stands among an answer's first four letters, if one does."""
    first = answer.strip().lower()[:4]
    return next((word for word in ("yes", "no") if word in first), None)


def chosen_letter(answer: str) -> str | None:
    """The letter that an answer gives; None where it gives none."""
    text = answer.strip()
    if re.fullmatch(r"\(?[A-Za-z]\)?[.:]?", text):
        return text.strip("().:").upper()
    if found := re.match(r"\(?([A-Z])[.:)]", text):
        return found[1]
    found = re.search(r"[Tt]he answer is:? \(?([A-Z])\b", text)
    return found[1] if found else None


NUMBER_WORDS = "zero one two three four five six seven eight nine ten"
NUMBERS = {word: str(value) for value, word in enumerate(NUMBER_WORDS.split())} | {"none": "0"}
ARTICLES = {"a", "an", "the"}
PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'


def normalized(answer: str) -> str:
    """An answer without case, punctuation and articles, numbers as digits, as VQA compares it.

    A mark between letters or digits becomes a blank unless it stands at a word's edge, a comma in a
    number goes, and full stops go where no digit follows. An apostrophe that is missing in a
    contraction ("dont") is put in.
    """
    text = answer.lower()
    edged = {mark for mark in PUNCTUATION if f"{mark} " in text or f" {mark}" in text}
    comma = re.search(r"\d,\d", text) is not None
    for mark in PUNCTUATION:
        text = text.replace(mark, "" if mark in edged or comma else " ")
    text = re.sub(r"\.(?!\d)", "", text)
    words = [NUMBERS.get(word, word) for word in text.split()]
    return " ".join(CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES)


SHORTENED = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd
how's i'd've i'm i've isn't it'd it'll let's ma'am might've mightn't must've mustn't needn't o'clock
oughtn't she's should've shouldn't somebody's someone's something's that's there'd there're
there's they'd they'll they're they've wasn't we've weren't what'll what're what's what've when's
where'd where's where've who'd who'll who's who've why's won't would've wouldn't y'all you'd you'll
you're you've
"""
CONTRACTIONS = {word.replace("'", ""): word for word in SHORTENED.split()}


def _number(group: str) -> int:
    """A number of 64 bits that stands for a group."""
    digest = hashlib.blake2b(group.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little", signed=True)
