"""Other forms of the conversations of a batch, for further passes of a model over them."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import torch
from PIL import Image

from coincide_pl.data.record import IMAGE_MARK, Record, Turn

MARKS = re.compile(f" {IMAGE_MARK}(?= )|\n{IMAGE_MARK}$|{IMAGE_MARK}\n?")
LIKELY_QUESTION = "Based on the image, what is the likely question?"
LIKELY_QUESTION_OF = "Based on the image and answer, what is the likely question? Answer: {}"
"""DICS's prompts (appendix A.3), without and with the answer."""


@dataclass(frozen=True)
class Rewriting:
    """Another form of a conversation, which a further pass of a model reads.

    Both functions go to worker processes, so they must be such that pickle can name them.

    Attributes:
        record: makes another record of a record, in which each image mark has its image.
        image: makes another image of an image; None where images stay as they are.
    """

    record: Callable[[Record], Record]
    image: Callable[[Image.Image], Image.Image] | None = None


def unchanged(record: Record) -> Record:
    """The record itself."""
    return record


def without_images(record: Record) -> Record:
    """The same conversation as text alone; a mark goes with the end of line or blank beside it."""
    turns = tuple(replace(turn, text=said(turn)) for turn in record.turns)
    return replace(record, images=(), turns=turns)


def without_questions(record: Record) -> Record:
    """The images alone, and to them all answers, one behind the other, as PreSel's authors do."""
    shown = IMAGE_MARK * len(record.images)
    answers = [turn.text for turn in record.turns if turn.role == "assistant"]
    turns = (Turn("user", shown), Turn("assistant", " ".join(answers)))
    return replace(record, turns=turns)


def asking_back(record: Record) -> Record:
    """Each answer replaced by its question, and each question by DICS's prompt for it."""
    return _asked_back(record, lambda answer: LIKELY_QUESTION)


def asking_back_by_answers(record: Record) -> Record:
    """As `asking_back`, but the prompts tell the answers."""
    return _asked_back(record, LIKELY_QUESTION_OF.format)


def _asked_back(record: Record, prompt: Callable[[str], str]) -> Record:
    """The conversation with what is asked and what is answered exchanged."""
    turns: list[Turn] = []
    asked: list[str] = []  # by the user since the last answer
    marks = 0
    for turn in record.turns:
        if turn.role == "system":
            turns.append(turn)
        elif turn.role == "user":
            asked.append(said(turn))
            marks += turn.text.count(IMAGE_MARK)
        else:
            shown = f"{IMAGE_MARK}\n" * marks
            turns.append(Turn("user", shown + prompt(turn.text)))
            turns.append(Turn("assistant", "\n".join(asked)))
            asked, marks = [], 0
    images = record.images[: len(record.images) - marks]  # those after the last answer go with it
    return replace(record, images=images, turns=tuple(turns))


def said(turn: Turn) -> str:
    """What a turn says, without image marks."""
    return MARKS.sub("", turn.text) if turn.role == "user" else turn.text


SIDES = ((2000, 501), (800, 301), (500, 201), (0, 101))
"""Widths of images in pixels, and from each on the side of the square that a blur takes in."""


@dataclass(frozen=True)
class Blur:
    """A Gaussian blur that leaves hardly more of a picture than its colors.

    It takes in a square around each pixel, mirrored at the border, with a standard deviation of one
    pixel less than the square's side.

    Attributes:
        side: of the square in pixels, odd; None for that of `SIDES` by the image's width.
    """

    side: int | None = None

    def __call__(self, image: Image.Image) -> Image.Image:
        """The blurred image, of the same size."""
        side = self.side or next(side for width, side in SIDES if image.width >= width)
        pixels = torch.from_numpy(np.array(image, np.float32)).permute(2, 0, 1)  # [3, H, W]
        down, across = _smoothing(image.height, side), _smoothing(image.width, side)
        blurred = (down @ pixels @ across.T).permute(1, 2, 0)
        return Image.fromarray(blurred.round().clamp(0, 255).byte().numpy())


@lru_cache(maxsize=16)
def _smoothing(size: int, side: int) -> torch.Tensor:
    """What a blur makes of a line of pixels, as a matrix float32 [size, size]."""
    offsets = np.arange(side) - side // 2
    weights = np.exp(-(offsets**2) / (2 * max(side - 1, 1) ** 2))
    mirrored = np.pad(np.arange(size), side // 2, "reflect")
    windows = np.lib.stride_tricks.sliding_window_view(mirrored, side)  # [size, side]
    matrix = np.zeros((size, size))
    np.add.at(matrix, (np.arange(size)[:, None], windows), weights / weights.sum())
    return torch.from_numpy(matrix).float()


WITHOUT_IMAGE = Rewriting(without_images)
WITHOUT_QUESTION = Rewriting(without_questions)
QUESTION = Rewriting(asking_back)
QUESTION_BY_ANSWER = Rewriting(asking_back_by_answers)
