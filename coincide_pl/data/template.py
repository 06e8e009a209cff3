"""A chat template taken apart: the text that it puts around what user and assistant say."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from coincide_pl.data.record import IMAGE_MARK, Turn
from coincide_pl.data.rendering import Message, rendered, same_every_time
from coincide_pl.errors import ModelError

log = logging.getLogger(__name__)

KEPT = 4096
"""How many structures of conversations are remembered."""

Part = tuple[str, bool, str] | None
"""A part of a turn: blanks before a text, whether there is a text, blanks after; None: an image."""
Shape = tuple[tuple[str, tuple[Part, ...]], ...]
"""The structure of a conversation: each turn's role and parts."""


@dataclass(frozen=True)
class Spoken:
    """A piece of what somebody says, as it stands in the text."""

    role: str
    text: str


class Template:
    """Renders conversations with the chat template of a processor.

    Blanks around a text stay or go as the template has it. Jinja runs once per structure of a
    conversation; what is said takes no part in it, so nothing that is typed can act as markup.

    Some templates write no token that ends an answer, for they are made for models that bring one
    out by themselves. Here the tokenizer's end token is put after each answer then, or a finetuned
    model would never stop.
    """

    def __init__(self, processor: Any, image_token: str | None = None) -> None:
        """Finds out what the template writes for an image, and whether it strips answers.

        Args:
            processor: of transformers, with a tokenizer and a chat template.
            image_token: what the template writes for an image, where the processor can't tell.

        Raises:
            ModelError: no chat template, or no image token in what it writes.
        """
        self.tokenizer = processor.tokenizer
        self._known: dict[tuple[Shape, bool], tuple[list[str], str]] = {}
        name = type(processor).__name__
        written = getattr(processor, "chat_template", None) or self.tokenizer.chat_template
        jinja = written.get("default") if isinstance(written, dict) else written
        if not jinja:
            raise ModelError(
                f"{name} has no chat template: add a chat_template.jinja to the checkpoint"
            )
        self.jinja = same_every_time(jinja)
        self.added_end = ""
        try:
            shown, end = self._render((_SHOWN, _ANSWER))
        except ModelError as error:
            if self._takes_text_alone():
                raise ModelError(
                    "the chat template takes text alone, so it can't be used with images; "
                    "give the checkpoint a chat_template.jinja that takes images"
                ) from error
            raise
        named = (image_token, *(getattr(processor, a, None) for a in ("boi_token", "image_token")))
        marks = [mark for mark in named if isinstance(mark, str) and mark in "".join(shown)]
        if not marks:
            raise ModelError(
                f"{name}: no image token found in what its chat template writes for an image: "
                "name it with the option data.image_token"
            )
        self.image_mark: str = marks[0]
        if not self._is_end(end):
            self.added_end = self.tokenizer.eos_token or ""
            self._known.clear()
            if not self.added_end:
                log.warning(
                    "%s: neither the chat template nor the tokenizer has a token that ends an "
                    "answer: a model that is finetuned with them never stops",
                    name,
                )
        bare, _ = self._render((_ASKED, _ANSWER))
        wide, _ = self._render((_ASKED, ("assistant", (("\n", True, "\n"),))))
        self.strips_answers = bare == wide

    @cached_property
    def refuses_system(self) -> str:
        """Why the template takes no system text; empty where it takes one."""
        try:
            self._pieces((_TOLD, _ASKED, _ANSWER), 3)
        except ModelError as error:
            return str(error)
        return ""

    def render(
        self, turns: Sequence[Turn], to_answer: bool = False
    ) -> tuple[list[str], list[Spoken], str]:
        """The text of a conversation, in pieces.

        Args:
            turns: of the record; image marks count in the user's turns.
            to_answer: the last answer is still to be given: whatever it is, room is made for it.

        Returns:
            The template's own text before, between and after the texts that are spoken, these, and
            what the template prints after a last answer to end it.

        Raises:
            ModelError: the template does not show each turn as it is.
        """
        last = max(i for i, turn in enumerate(turns) if turn.role == "assistant")
        shape: list[tuple[str, tuple[Part, ...]]] = []
        spoken: list[Spoken] = []
        for number, turn in enumerate(turns):
            parts: list[Part] = []
            text = turn.text
            if turn.role == "assistant":
                text = text.strip() if self.strips_answers else text
                if to_answer and number == last:
                    text = "?"
                parts.append(("", bool(text), ""))
                spoken += [Spoken("assistant", text)] if text else []
            else:
                marked = text.split(IMAGE_MARK) if turn.role == "user" else [text]
                for position, piece in enumerate(marked):
                    if position:  # the end of line after a mark is the data format's, not text
                        parts.append(None)
                        piece = piece.removeprefix("\n")
                    elif len(marked) > 1:
                        piece = piece.removesuffix("\n")
                    core = piece.strip()
                    before = piece[: len(piece) - len(piece.lstrip())] if core else piece
                    after = piece[len(before) + len(core) :]
                    if piece or len(marked) == 1:
                        parts.append((before, bool(core), after))
                    spoken += [Spoken(turn.role, core)] if core else []
            shape.append((turn.role, tuple(parts)))
        pieces, end = self._render(tuple(shape))
        return pieces, spoken, end

    def _render(self, shape: Shape, ends: bool = True) -> tuple[list[str], str]:
        """The pieces between the texts of a structure, and what ends a last answer."""
        if (shape, ends) not in self._known:
            roles = [role for role, parts in shape for part in parts if part and part[1]]
            pieces = self._pieces(shape, len(roles))
            text = pieces[-1]
            end = self._end(shape, text) if ends else ""
            if ends and self.added_end:
                for number, role in enumerate(roles):
                    if role == "assistant":
                        pieces[number + 1] = self._ended(pieces[number + 1], end)
                end += self.added_end
            if len(self._known) == KEPT:
                self._known.clear()
            self._known[shape, ends] = pieces, end
        return self._known[shape, ends]

    def _pieces(self, shape: Shape, count: int) -> list[str]:
        """What the template writes before, between and after the `count` texts of a structure.

        Contents are lists of parts. Where the template takes text alone from somebody who shows no
        image, it is given text.
        """
        refused: ModelError | None = None
        for plain in AS_TEXT:
            try:
                text = rendered(self.tokenizer, self.jinja, _messages(shape, plain))
            except ModelError as error:
                refused = refused or error
                continue
            pieces = []
            for number in range(count):
                before, found, text = text.partition(_mark(number))
                pieces += [before] if found else []
            if len(pieces) == count and not PRINTED_PARTS.search("".join([*pieces, text])):
                return [*pieces, text]
        raise refused or ModelError(
            "the chat template does not show each turn as it is; "
            f"it can't be used for turns by {', '.join(role for role, _ in shape)}"
        )

    def _takes_text_alone(self) -> bool:
        """Whether the template, which can't be used with images, can be used without."""
        try:
            self._pieces((_ASKED, _ANSWER), 2)
        except ModelError:
            return False
        return True

    def _end(self, shape: Shape, after: str) -> str:
        """What the template prints after an answer that is the last turn."""
        if shape[-1] != _ANSWER:
            after = self._render((shape[0], _ANSWER), ends=False)[0][-1]
        return after.rstrip()

    def _ended(self, piece: str, end: str) -> str:
        """A piece that follows an answer, with the end token where it has none of its own."""
        if piece.lstrip().startswith(self.added_end):
            return piece
        place = len(end) if piece.startswith(end) else 0
        return piece[:place] + self.added_end + piece[place:]

    def _is_end(self, end: str) -> bool:
        """Whether what is printed after an answer holds a control token, which ends it."""
        ids = self.tokenizer(end, add_special_tokens=False)["input_ids"] if end else []
        control = {id for id, kind in self.tokenizer.added_tokens_decoder.items() if kind.special}
        return not control.isdisjoint(ids)


def _messages(shape: Shape, plain: Sequence[str]) -> list[Message]:
    """Messages of a structure, with marks for what is said.

    Args:
        shape: the structure.
        plain: roles whose content is text where it shows no image; that of others is a list.
    """
    messages: list[Message] = []
    count = 0
    for role, pieces in shape:
        content: list[dict[str, str]] = []
        for piece in pieces:
            if piece is None:
                content.append({"type": "image"})
                continue
            before, said, after = piece
            content.append({"type": "text", "text": before + _mark(count) * said + after})
            count += said
        if role in plain and None not in pieces:
            messages.append({"role": role, "content": "".join(part["text"] for part in content)})
        else:
            messages.append({"role": role, "content": content})
    return messages


def _mark(number: int) -> str:
    """Stands for a text that is said, in what is rendered."""
    return f"\ue000{number}\ue001"


AS_TEXT = ((), ("assistant",), ("assistant", "system"), ("assistant", "system", "user"))
"""Roles from whom a template may take text alone; the first that it can be used with counts."""
PRINTED_PARTS = re.compile(r"\{['\"]type['\"]: ['\"](text|image)")
"""How parts look where a template prints them, rather than what is in them."""
_TOLD: tuple[str, tuple[Part, ...]] = ("system", (("", True, ""),))
_ASKED: tuple[str, tuple[Part, ...]] = ("user", (("", True, ""),))
_SHOWN: tuple[str, tuple[Part, ...]] = ("user", (None, ("", True, "")))
_ANSWER: tuple[str, tuple[Part, ...]] = ("assistant", (("", True, ""),))
