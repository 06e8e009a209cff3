"""A record: one sample, in the one form in which samples travel, whatever file they came from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from coincide_pl.errors import DataError

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)
ROLE_NUMBERS = {role: number for number, role in enumerate(ROLES)}

IMAGE_MARK = "<image>"
UNNAMED = "unnamed"
"""The name of the source of records that name none, wherever sources have names."""


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
        source: the task or data set it came from, if the data says; `UNNAMED` stands for none.
        number: its place in the data set's files, where some may have been left out.
    """

    id: str
    images: tuple[str, ...]
    turns: tuple[Turn, ...]
    source: str | None = None
    number: int | None = field(default=None, compare=False)


class Unusable(DataError):
    """A record or an image that can't be used; `kind` says why in few words, to be counted."""

    def __init__(self, kind: str, message: str) -> None:
        """Keeps the kind beside the message.

        Args:
            kind: such as `malformed`.
            message: what is wrong, in one line.
        """
        super().__init__(message)
        self.kind = kind

    def __reduce__(self) -> tuple[type[Unusable], tuple[str, str]]:
        return Unusable, (self.kind, str(self))
