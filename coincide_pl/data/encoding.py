"""Encode conversations as token ids, labels and masks, by the model's own chat template.

The template is rendered once per conversation structure, to learn the pieces of text that it puts
between the turns. The whole text is tokenized once; what each token is follows from where its
characters lie. Each image mark then becomes the run of tokens that the processor makes of that
image, so an image is processed once however many conversations are about it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from coincide_pl.data.records import IMAGE_MARK, Record
from coincide_pl.errors import ModelError

IGNORE = -100
"""The label of a token that is not trained on."""


@dataclass(frozen=True)
class EncodedImage:
    """One image: the tokens that stand for it, and what the model reads of it.

    Attributes:
        tokens: int64 [run], from the processor.
        inputs: the model's image arguments (`pixel_values` and so on), batched over one image.
    """

    tokens: np.ndarray
    inputs: dict[str, Tensor]


@dataclass(frozen=True)
class Encoding:
    """One conversation of T tokens.

    Attributes:
        input_ids: int64 [T].
        labels: int64 [T], the token where an assistant's turn or its end token stands, else -100.
        image_mask: bool [T], tokens whose place the image features take.
        text_mask: bool [T], text after the first image; with no image, from the first user text on.
        num_images: images that were kept; fewer than given where the maximum length cuts.
        truncated: whether the maximum length cut it.
    """

    input_ids: np.ndarray
    labels: np.ndarray
    image_mask: np.ndarray
    text_mask: np.ndarray
    num_images: int
    truncated: bool


class Encoder:
    """Encodes records with one processor; can be sent to worker processes."""

    def __init__(self, processor: Any, max_length: int = 2048) -> None:
        """Looks the processor's special tokens up.

        Args:
            processor: a processor of transformers with a chat template and a fast tokenizer.
            max_length: in tokens, image tokens included; longer conversations are cut at the end.

        Raises:
            ModelError: the processor has no chat template, image token or fast tokenizer.
        """
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.max_length = max_length
        name = type(processor).__name__
        if not (getattr(processor, "chat_template", None) or self.tokenizer.chat_template):
            raise ModelError(
                f"{name} has no chat template: add a chat_template.jinja to the checkpoint"
            )
        if not self.tokenizer.is_fast:
            raise ModelError(f"{name}: a fast tokenizer (tokenizer.json) is needed")
        token = getattr(processor, "image_token", None)
        if not isinstance(token, str):
            raise ModelError(f"{name} has no image token")
        self.image_token: str = token
        self.image_id = self.tokenizer.convert_tokens_to_ids(self.image_token)
        self.special_ids = np.array(sorted(self.tokenizer.added_tokens_decoder), np.int64)
        bos = self.tokenizer.bos_token_id
        self._bos = bos if bos is not None and self.tokenizer("a")["input_ids"][0] == bos else None
        self._pieces: dict[tuple[str, ...], tuple[list[str], str]] = {}

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Process one image, alone."""
        out = self.processor(
            text=[self.image_token], images=[image], add_special_tokens=False, return_tensors="pt"
        )
        tokens = out.pop("input_ids")[0].numpy()
        inputs = {
            key: value
            for key, value in out.items()
            if isinstance(value, Tensor)
            and key not in ("attention_mask", "token_type_ids", "mm_token_type_ids")
        }
        return EncodedImage(tokens, inputs)

    def encode(self, record: Record, images: list[EncodedImage]) -> Encoding:
        """Encode a whole conversation.

        Args:
            record: the conversation.
            images: one per image of the record.
        """
        return self._encode(record, images, to_answer=False)

    def encode_prompt(self, record: Record, images: list[EncodedImage]) -> Encoding:
        """Encode a conversation up to where its last answer begins, for generation."""
        return self._encode(record, images, to_answer=True)

    def _encode(self, record: Record, images: list[EncodedImage], to_answer: bool) -> Encoding:
        contents = self._contents(record)
        pieces, end = self._structure(record)
        text, spans = pieces[0], []
        for content, piece in zip(contents, pieces[1:], strict=True):
            spans.append((len(text), len(text) + len(content)))
            text += content + piece
        roles = [turn.role for turn in record.turns]
        answers = [i for i, role in enumerate(roles) if role == "assistant"]
        if to_answer:
            text = text[: spans[answers[-1]][0]].rstrip(" ")
            spans = spans[: answers[-1]]
            answers = answers[:-1]
        out = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids = np.array(out["input_ids"], np.int64)
        starts, ends = np.array(out["offset_mapping"], np.int64).reshape(-1, 2).T
        ids, starts, ends = self._begin(ids, starts, ends)
        ids, starts, ends = self._spell_out(text, ids, starts, ends, spans, roles)
        labelled = np.zeros(len(ids), bool)
        for i in answers:
            # A token that begins with the blank before the answer belongs to the answer.
            labelled |= (ends > spans[i][0]) & (starts < spans[i][1] + len(end))
        first_user = next(spans[i][0] for i, role in enumerate(roles) if role == "user")
        return self._expand(ids, labelled, ends > first_user, images)

    def _begin(
        self, ids: np.ndarray, starts: np.ndarray, ends: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Put the tokenizer's own first token (BOS) in front, unless the template wrote it."""
        if self._bos is None or (len(ids) and ids[0] == self._bos):
            return ids, starts, ends
        return np.append(self._bos, ids), np.append(0, starts), np.append(0, ends)

    def _spell_out(
        self,
        text: str,
        ids: np.ndarray,
        starts: np.ndarray,
        ends: np.ndarray,
        spans: list[tuple[int, int]],
        roles: Sequence[str],
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Replace control tokens that somebody typed by ordinary tokens of the same text."""
        typed = np.zeros(len(ids), bool)
        special = np.isin(ids, self.special_ids) & (ends > starts)
        if not special.any():
            return ids, starts, ends
        for (start, stop), role in zip(spans, roles, strict=False):
            inside = special & (starts >= start) & (ends <= stop)
            typed |= inside & ((ids != self.image_id) | (role != "user"))
        if not typed.any():
            return ids, starts, ends
        parts: list[tuple[list[int], int, int]] = []
        for i in range(len(ids)):
            plain = [int(ids[i])]
            if typed[i]:
                plain = self.tokenizer.encode(
                    text[starts[i] : ends[i]], add_special_tokens=False, split_special_tokens=True
                )
            parts.append((plain, int(starts[i]), int(ends[i])))
        counts = [len(plain) for plain, _, _ in parts]
        return (
            np.array([token for plain, _, _ in parts for token in plain], np.int64),
            np.repeat(starts, counts),
            np.repeat(ends, counts),
        )

    def _expand(
        self,
        ids: np.ndarray,
        labelled: np.ndarray,
        spoken: np.ndarray,
        images: list[EncodedImage],
    ) -> Encoding:
        """Put each image's run of tokens where its mark is, and cut at the maximum length."""
        marks = np.flatnonzero(ids == self.image_id)
        if len(marks) != len(images):
            raise ModelError(f"the chat template shows {len(marks)} of {len(images)} images")
        counts = np.ones(len(ids), np.int64)
        counts[marks] = [len(image.tokens) for image in images]
        ends = np.cumsum(counts)
        total = int(ends[-1])
        kept = len(images)
        length = total
        if total > self.max_length:
            length = self.max_length
            for mark in marks[::-1]:  # a run is kept whole or not at all
                if ends[mark] > length:
                    length = min(length, int(ends[mark] - counts[mark]))
                    kept -= 1
        full = np.repeat(ids, counts)
        run = np.repeat(np.isin(np.arange(len(ids)), marks), counts)
        if len(images):
            full[run] = np.concatenate([image.tokens for image in images])
        labels = np.where(np.repeat(labelled, counts) & ~run, full, IGNORE)
        text = ~run & np.repeat(spoken, counts)
        if len(marks):
            text &= np.arange(total) >= ends[marks[0]]
        return Encoding(
            full[:length],
            labels[:length],
            (run & (full == self.image_id))[:length],
            text[:length],
            kept,
            length < total,
        )

    def _contents(self, record: Record) -> list[str]:
        """Each turn's text, image marks as the processor's image tokens."""
        return [
            turn.text.replace(IMAGE_MARK, self.image_token).strip()
            if turn.role == "user"
            else turn.text.strip()
            for turn in record.turns
        ]

    def _structure(self, record: Record) -> tuple[list[str], str]:
        """The template's text between contents, and what it prints after a last answer."""
        shape = tuple(turn.role for turn in record.turns)
        if shape not in self._pieces:
            marks = [f"\ue000{i}\ue001" for i in range(len(shape))]
            messages = [
                {"role": role, "content": [{"type": "text", "text": mark}]}
                for role, mark in zip(shape, marks, strict=True)
            ]
            text = self.processor.apply_chat_template(messages, tokenize=False)
            pieces = []
            for mark in marks:
                before, found, text = text.partition(mark)
                if not found:
                    raise ModelError(
                        "the chat template does not show each turn as it is; "
                        f"it can't be used for turns by {', '.join(shape)}"
                    )
                pieces.append(before)
            last = max(i for i, role in enumerate(shape) if role == "assistant")
            if last == len(shape) - 1:
                end = text
            else:
                whole = self.processor.apply_chat_template(messages[: last + 1], tokenize=False)
                end = whole.partition(marks[last])[2]
            self._pieces[shape] = ([*pieces, text], end.rstrip())
        return self._pieces[shape]
