"""Question files as LLaVA's evaluation has them: a line for each question, answers elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from coincide_pl.data.readers.conversation import MALFORMED, identity_of, inside, other_reader
from coincide_pl.data.readers.json_text import chosen_items, json_items, json_lines
from coincide_pl.data.readers.llava import IMAGES, images_of
from coincide_pl.data.readers.reader import OnError, Reader
from coincide_pl.data.readers.truths import NO_ANSWER, Truths, answer_of
from coincide_pl.data.readers.unread import refuse_unread
from coincide_pl.data.record import IMAGE_MARK, Record, Turn, Unusable
from coincide_pl.errors import DataError
from coincide_pl.files import write_text


class QuestionFile(Reader):
    """Questions to test on, such as `llava_pope_test.jsonl` or `llava_vqav2_*.jsonl`.

    A question has `question_id`, `text` (or `question`), and perhaps `image` and `category`, its
    task. Its answer stands beside it, or in a file of answers under the same `question_id`: JSON
    lines, a JSON array, the `annotations` of VQAv2, the `data` of TextVQA, or an object from id to
    answer. Of several annotators, the truth is one answer a line.
    """

    id_field = "question_id"
    trained_on = False

    def __init__(
        self,
        path: str,
        image_folder: str | None = None,
        answers: str | None = None,
        suffix: str = "",
        on_error: OnError = "stop",
    ) -> None:
        """Remembers where the data lie; nothing is read yet.

        Args:
            path: file of the questions, JSON lines or a JSON array.
            image_folder: folder that the `image` paths are relative to (default: the
                folder of the questions).
            answers: file of the answers, where they do not stand beside the questions.
            suffix: text that is put after each question, such as a line that asks for a single
                word.
            on_error: what to do at a question or image that can't be used: `stop`, or `skip` such
                questions, count them, and list them in a file. All images are opened for that,
                once.

        Raises:
            DataError: there is no such file or folder.
        """
        self.path = Path(path).expanduser()
        self.image_folder = image_folder
        self.image_root = Path(image_folder).expanduser() if image_folder else self.path.parent
        self.answers = Path(answers).expanduser() if answers else None
        self.suffix = suffix
        self.on_error = on_error
        for file in self.files():
            if file.is_dir() or file.suffix in (".parquet", ".arrow"):
                raise DataError(f"{file}: not JSON; ChatDataset reads folders, Parquet and Arrow")
            if not file.is_file():
                raise DataError(f"{file}: no such data file")
        if not self.image_root.is_dir():
            raise DataError(f"{image_folder}: no such image folder")

    def files(self) -> list[Path]:
        """The file of the questions, and that of the answers if there is one."""
        return [self.path] + ([self.answers] if self.answers else [])

    def options(self) -> dict[str, object]:
        """The suffix of each question."""
        return {"suffix": self.suffix}

    def items(self) -> Iterator[object]:
        """Yields the questions in file order."""
        self._truths = Truths(self.answers, self._ids()) if self.answers else None
        return json_items(self.path)

    def _ids(self) -> Iterator[str]:
        """Yields the ids of the questions in file order."""
        for number, item in enumerate(json_items(self.path)):
            if isinstance(item, dict):
                yield str(number if item.get(self.id_field) is None else item[self.id_field])

    def record(self, number: int, item: object) -> Record:
        """A question and its answer as a record."""
        if not isinstance(item, dict):
            raise Unusable(MALFORMED, f"is a {type(item).__name__}, not an object")
        identity = identity_of(item, self.id_field, number)
        refuse_unread(item, IMAGES)
        text = item.get("question") if item.get("text") is None else item["text"]
        if not isinstance(text, str):
            raise Unusable(MALFORMED, f"'text' must be text{other_reader(item, 'QuestionFile')}")
        truth = self._truths.of(identity, text) if self._truths else None
        truth = answer_of(item) if truth is None else truth
        if truth is None:
            where = self.answers or "'answer'; name a file of answers"
            raise Unusable(NO_ANSWER, f"has no answer in {where}")
        images = tuple([inside(image, self.image_root) for image in images_of(item)])
        text = text.replace(IMAGE_MARK, "").strip() + self.suffix
        turns = (Turn("user", f"{IMAGE_MARK}\n" * len(images) + text), Turn("assistant", truth))
        task = item.get("category")
        return Record(identity, images, turns, task if isinstance(task, str) else None, number)

    def write_subset(self, numbers: Iterable[int], path: Path) -> None:
        """Writes the chosen questions as JSON lines."""
        write_text(path, json_lines(chosen_items(self.path, numbers)))
