"""The right answers of a benchmark's questions, joined to the questions."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from coincide_pl.data.readers.conversation import Item
from coincide_pl.data.readers.json_text import json_items
from coincide_pl.data.record import Unusable
from coincide_pl.errors import DataError

ANSWERS = ("answers", "answer", "label", "multiple_choice_answer", "ground_truth")
"""Keys of a question's right answer; the first that a question has counts."""
NO_ANSWER = "without an answer"
"""Kind of an unusable question."""


def answer_of(item: Item) -> str | None:
    """A question's right answer, or its annotators' a line each; None where there is none."""
    value = next((item[key] for key in ANSWERS if item.get(key) is not None), None)
    if isinstance(value, list):
        lines = [one.get("answer") if isinstance(one, dict) else one for one in value]
        if not lines or not all(isinstance(line, str | int | float) for line in lines):
            return None
        return "\n".join(str(line).replace("\n", " ") for line in lines)
    return str(value) if isinstance(value, str | int | float) else None


@dataclass(frozen=True)
class Truth:
    """A right answer, as it stands in a file of answers.

    Attributes:
        answer: the answer, or the annotators' a line each.
        question: the text of the question, if the file has it.
    """

    answer: str
    question: str | None


class Truths:
    """The right answers of a file, found by the id of a question.

    Several answers may share an id, as in MME, where an image has two questions: then the text of
    the question tells which is meant, or else the order, if there are as many questions. Where a
    question has the id of its image, as LLaVA's TextVQA has, the answers of that image are looked
    through for its text.
    """

    def __init__(self, path: Path, ids: Iterable[str]) -> None:
        """Reads the file of answers.

        Args:
            path: JSON lines or JSON, in one of the forms that `QuestionFile` knows.
            ids: of all questions, in order.

        Raises:
            DataError: naming what has no answer.
        """
        self.path = path
        self._by_id: dict[str, list[Truth]] = defaultdict(list)
        self._by_image: dict[str, list[Truth]] = defaultdict(list)
        for identity, image, truth in self._read():
            self._by_id[identity].append(truth)
            if image is not None:
                self._by_image[image].append(truth)
        self._asked = Counter(ids)
        self._given: Counter[str] = Counter()

    def of(self, identity: str, text: str) -> str | None:
        """The answer to the next question of an id; None where there is none.

        Args:
            identity: the id of the question.
            text: its text.

        Raises:
            Unusable: several answers may be meant.
        """
        place = self._given[identity]
        self._given[identity] += 1
        truths = self._by_id.get(identity)
        if truths is None:
            truths = self._by_image.get(identity, [])
            asked = [truth for truth in truths if truth.question in _questions(text)]
            if truths and not asked:
                raise Unusable(NO_ANSWER, f"is none of the questions about it in {self.path}")
        else:
            asked = [truth for truth in truths if truth.question in _questions(text)] or truths
        answers = list(dict.fromkeys(truth.answer for truth in asked))
        if len(answers) > 1:
            if len(truths) != self._asked[identity]:
                found = (
                    f"{self.path}: {identity[:80]!r} {len(truths)} times, with different answers"
                )
                raise Unusable(NO_ANSWER, found)
            return truths[place].answer
        return answers[0] if answers else None

    def _read(self) -> Iterator[tuple[str, str | None, Truth]]:
        """Yields the id, the image and the answer of each question in the file."""
        for number, item in enumerate(json_items(self.path)):
            if not isinstance(item, dict):
                raise DataError(f"{self.path}: record {number} is not an object")
            inner = item.get("annotations", item.get("data"))
            if isinstance(inner, list):
                for place, one in enumerate(inner):
                    yield self._entry(f"'annotations' {place}", one)
            elif "question_id" in item:
                yield self._entry(f"record {number}", item)
            else:
                for identity, answer in item.items():
                    found = answer_of(answer if isinstance(answer, dict) else {"answer": answer})
                    if found is None:
                        raise DataError(f"{self.path}: {identity[:80]!r} has no answer")
                    yield identity, None, Truth(found, None)

    def _entry(self, name: str, item: object) -> tuple[str, str | None, Truth]:
        if isinstance(item, dict) and "question_id" in item:
            answer, image = answer_of(item), item.get("image_id")
            question = item.get("question", item.get("text"))
            if answer is not None:
                known = _plain(question) if isinstance(question, str) else None
                return (
                    str(item["question_id"]),
                    None if image is None else str(image),
                    Truth(answer, known),
                )
        raise DataError(f"{self.path}: {name} has no 'question_id' or no answer")


def _questions(text: str) -> set[str]:
    """What may be the question itself in a prompt: the whole, a line, or what is named so."""
    lines = {_plain(line) for line in [text, *text.splitlines()]}
    return lines | {
        _plain(found) for found in re.findall(r"Question:(.*?)(?:Short answer:|$)", text)
    }


def _plain(text: str) -> str:
    return " ".join(text.lower().split())
