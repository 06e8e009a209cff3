"""A chat template taken apart: the text that it puts around what user and assistant say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from coincide_pl.data.record import IMAGE_MARK, Turn
from coincide_pl.errors import ModelError

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
        self.jinja = written.get("default") if isinstance(written, dict) else written
        if not self.jinja:
            raise ModelError(
                f"{name} has no chat template: add a chat_template.jinja to the checkpoint"
            )
        shown, _ = self._render((("user", (None, ("", True, ""))), _ANSWER))
        named = (image_token, *(getattr(processor, a, None) for a in ("boi_token", "image_token")))
        marks = [mark for mark in named if isinstance(mark, str) and mark in "".join(shown)]
        if not marks:
            raise ModelError(
                f"{name}: no image token found in what its chat template writes for an image: "
                "name it with the option data.image_token"
            )
        self.image_mark: str = marks[0]
        asked = ("user", (("", True, ""),))
        bare, _ = self._render((asked, _ANSWER))
        wide, _ = self._render((asked, ("assistant", (("\n", True, "\n"),))))
        self.strips_answers = bare == wide

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
            messages: list[dict[str, object]] = []
            marks: list[str] = []
            for role, parts in shape:
                content: list[dict[str, str]] = []
                for part in parts:
                    if part is None:
                        content.append({"type": "image"})
                        continue
                    mark = f"\ue000{len(marks)}\ue001" if part[1] else ""
                    marks += [mark] if mark else []
                    content.append({"type": "text", "text": part[0] + mark + part[2]})
                messages.append({"role": role, "content": content})
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self.jinja, tokenize=False
            )
            pieces = []
            for mark in marks:
                before, found, text = text.partition(mark)
                if not found:
                    roles = ", ".join(role for role, _ in shape)
                    raise ModelError(
                        "the chat template does not show each turn as it is; "
                        f"it can't be used for turns by {roles}"
                    )
                pieces.append(before)
            pieces.append(text)
            if len(self._known) == KEPT:
                self._known.clear()
            self._known[shape, ends] = pieces, self._end(shape, text) if ends else ""
        return self._known[shape, ends]

    def _end(self, shape: Shape, after: str) -> str:
        """What the template prints after an answer that is the last turn."""
        if shape[-1] != _ANSWER:
            after = self._render((shape[0], _ANSWER), ends=False)[0][-1]
        return after.rstrip()


_ANSWER = ("assistant", (("", True, ""),))
