"""easy-VQA: 5,000 small images of one shape each, and 48,248 questions, in its PyPI wheel."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from coincide_pl.data.readers.reader import Reader
from coincide_pl.data.record import IMAGE_MARK, Record, Turn
from coincide_pl.errors import DataError

SHAPES = ("circle", "rectangle", "triangle")


class EasyVQA(Reader):
    """One record per question; its source is the question's family."""

    def __init__(self, split: Literal["train", "test"] = "train") -> None:
        """Finds the installed package's data.

        Args:
            split: name of the split, `train` (4,000 images, 38,575 questions) or `test`
                (1,000 and 9,673).

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
        """The file of the questions."""
        return [self.folder / "questions.json"]

    def options(self) -> dict[str, object]:
        """The name of the split."""
        return {"split": self.split}

    def items(self) -> Iterator[object]:
        """Yields the questions in file order."""
        return iter(json.loads(self.files()[0].read_text()))

    def record(self, number: int, item: object) -> Record:
        """A question as a record."""
        assert isinstance(item, list)
        question, answer, image = item
        return Record(
            id=f"{self.split}-{number:06d}",
            images=(f"{image}.png",),
            turns=(Turn("user", f"{IMAGE_MARK}\n{question}"), Turn("assistant", answer)),
            source=family(question, answer),
            number=number,
        )


def family(question: str, answer: str) -> str:
    """Which of the four kinds of question this is."""
    if answer not in ("yes", "no"):
        return "which shape" if answer in SHAPES else "which colour"
    return "shape yes/no" if any(shape in question for shape in SHAPES) else "colour yes/no"
