"""Records: the one form in which samples travel, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["system", "user", "assistant"]

IMAGE_MARK = "<image>"


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side says; `IMAGE_MARK` in a user's text stands where an image goes."""

    role: Role
    text: str


@dataclass(frozen=True, slots=True)
class Record:
    """One sample: a conversation about no, one or several images.

    Attributes:
        id: the sample's name in its data set.
        images: paths relative to the data set's image folder, in order of their marks.
        turns: the conversation.
        source: the task or data set it came from, if the data says.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    source: str | None = None
