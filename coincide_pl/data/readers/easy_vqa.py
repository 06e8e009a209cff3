"""easy-VQA: 5,000 small images of one shape each, and 48,248 questions, in its PyPI wheel."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

from coincide_pl.data.readers.json_text import json_array
from coincide_pl.data.readers.reader import Reader
from coincide_pl.data.records import IMAGE_MARK, Record, Turn
from coincide_pl.errors import DataError
from coincide_pl.files import write_text

SHAPES = ("circle", "rectangle", "triangle")


class EasyVQA(Reader):
    """One record per question; its source is the question's family."""

    def __init__(self, split: Literal["train", "test"] = "train") -> None:
        """Finds the installed package's data.

        Args:
            split: `train` (4,000 images, 38,575 questions) or `test` (1,000 and 9,673).

        Raises:
            DataError: the package is not installed.
        """
        package = importlib.util.find_spec("easy_vqa")
        if package is None or package.origin is None:
            raise DataError("easy-VQA is not installed: pip install easy-vqa")
        self.split = split
        self.folder = Path(package.origin).parent / "data" / split
        self.image_root = self.folder / "images"

    def files(self) -> list[Path]:
        """The questions."""
        return [self.folder / "questions.json"]

    def options(self) -> dict[str, Any]:
        """The split."""
        return {"split": self.split}

    def items(self) -> Iterator[Any]:
        """Yields the questions in file order."""
        return iter(json.loads(self.files()[0].read_text()))

    def record(self, number: int, item: Any) -> Record:
        """A question as a record."""
        question, answer, image = item
        return Record(
            id=f"{self.split}-{number:06d}",
            images=(f"{image}.png",),
            turns=(Turn("user", f"{IMAGE_MARK}\n{question}"), Turn("assistant", answer)),
            source=family(question, answer),
            number=number,
        )

    def write_subset(self, numbers: Iterable[int], path: Path) -> None:
        """Writes the chosen questions in LLaVA's format."""
        records = list(self)
        write_text(path, json_array(llava_item(records[int(number)]) for number in numbers))


def family(question: str, answer: str) -> str:
    """Which of the four kinds of question this is."""
    if answer not in ("yes", "no"):
        return "which shape" if answer in SHAPES else "which colour"
    return "shape yes/no" if any(shape in question for shape in SHAPES) else "colour yes/no"


def llava_item(record: Record) -> dict[str, Any]:
    """A record as an item of a LLaVA-format file."""
    senders = {"user": "human", "assistant": "gpt", "system": "system"}
    item: dict[str, Any] = {"id": record.id}
    if record.images:
        item["image"] = record.images[0] if len(record.images) == 1 else list(record.images)
    if record.source is not None:
        item["source"] = record.source
    item["conversations"] = [{"from": senders[t.role], "value": t.text} for t in record.turns]
    return item
