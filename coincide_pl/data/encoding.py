"""Encode conversations as token ids, labels and masks, by the model's own chat template.

The template is rendered once per conversation structure, to learn the pieces of text that it puts
around what was said. The whole text is tokenized once; what each token is follows from where its
characters lie. Each image mark then becomes the run of tokens that the processor makes of that
image, so an image is processed once however many conversations are about it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image
from torch import Tensor

from coincide_pl.data.record import Record, Turn
from coincide_pl.data.template import Spoken, Template
from coincide_pl.errors import ModelError

SystemText = Literal["template", "question"]
"""Where a system text goes that the chat template does not take."""
IGNORE = -100
"""The label of a token that is not trained on."""


OF_TEXT = (
    *("attention_mask", "token_type_ids", "mm_token_type_ids", "position_ids", "cache_position"),
    *("labels", "special_tokens_mask", "length", "num_image_tokens"),
)
"""What processors return of the text beside its tokens; it is no argument for an image."""


@dataclass(frozen=True)
class EncodedImage:
    """One image: the tokens that stand for it, and what the model reads of it.

    Attributes:
        tokens: int64 [run], from the processor: feature tokens, and control tokens around them.
        before: plain text that the processor puts in front of the run.
        after: the same after it.
        num_features: how many of the tokens are feature tokens.
        inputs: the model's image arguments (`pixel_values` and so on), batched over one image.
    """

    tokens: np.ndarray
    before: str
    after: str
    num_features: int
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


@dataclass
class _Tokens:
    """Tokens of a text, int64 [T], and where in the text each begins and ends, int64 [T]."""

    ids: np.ndarray
    starts: np.ndarray
    ends: np.ndarray


class Encoder:
    """Encodes records with one processor; can be sent to worker processes."""

    def __init__(
        self,
        processor: Any,
        max_length: int = 2048,
        image_token: str | None = None,
        system_text: SystemText = "template",
    ) -> None:
        """Looks the processor's special tokens up.

        Args:
            processor: a processor of transformers with a chat template and a fast tokenizer.
            max_length: in tokens, image tokens included; longer conversations are cut at the end.
            image_token: the token whose place image features take, for a processor that does not
                name it.
            system_text: where system texts go: into the chat `template`, which must take them; or,
                where it does not, in front of the first `question`.

        Raises:
            ModelError: the processor has no chat template, image token or fast tokenizer.
        """
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.max_length, self.system_text = max_length, system_text
        name = type(processor).__name__
        if not self.tokenizer.is_fast:
            raise ModelError(f"{name}: a fast tokenizer (tokenizer.json) is needed")
        self.template = Template(processor, image_token)
        self.mark_id = self.tokenizer.convert_tokens_to_ids(self.template.image_mark)
        own = None if image_token else getattr(self.tokenizer, "image_token_id", None)
        named = image_token or getattr(processor, "image_token", None)
        self.image_id = own if own is not None else self.tokenizer.convert_tokens_to_ids(named)
        added = self.tokenizer.added_tokens_decoder.items()
        control = {token for token, kind in added if kind.special} | {self.mark_id, self.image_id}
        self.control_ids = np.array(sorted(control), np.int64)
        bos = self.tokenizer.bos_token_id
        self._bos = bos if bos is not None and self.tokenizer("a")["input_ids"][0] == bos else None

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Process one image by itself: the tokens that stand for it, and what the model reads."""
        mark = self.template.image_mark
        out = self.processor(
            text=[mark], images=[image], add_special_tokens=False, return_tensors="pt"
        )
        tokens = out.pop("input_ids")[0].numpy()
        inputs = {
            key: value
            for key, value in out.items()
            if isinstance(value, Tensor) and key not in OF_TEXT
        }
        control = np.flatnonzero(np.isin(tokens, self.control_ids))
        first, last = (control[0], control[-1] + 1) if len(control) else (0, len(tokens))
        before, after = (self.tokenizer.decode(part) for part in (tokens[:first], tokens[last:]))
        run = tokens[first:last]
        return EncodedImage(run, before, after, int((run == self.image_id).sum()), inputs)

    def encode(self, record: Record, images: list[EncodedImage]) -> Encoding:
        """Encode a whole conversation.

        Args:
            record: the conversation.
            images: one per image of the record.
        """
        pieces, spoken, end = self.template.render(self._turns(record))
        return self._encode(self._lay_out(pieces, spoken, images), spoken, end, images)

    def encode_prompt(self, record: Record, images: list[EncodedImage]) -> Encoding:
        """Encode a conversation up to where its last answer begins, for generation."""
        pieces, spoken, end = self.template.render(self._turns(record), to_answer=True)
        text, spans = self._lay_out(pieces, spoken, images)
        answer = max(i for i, one in enumerate(spoken) if one.role == "assistant")
        text = text[: spans[answer][0]].rstrip(" ")
        return self._encode((text, spans[:answer]), spoken[:answer], end, images)

    def _turns(self, record: Record) -> tuple[Turn, ...]:
        """The turns as the chat template takes them: a system text may go to the first question."""
        if record.turns[0].role != "system" or not (why := self.template.refuses_system):
            return record.turns
        if self.system_text == "template":
            raise ModelError(
                f"{why}; with data.system_text=question system texts go in front of the first "
                "question"
            )
        told, asked, *others = record.turns
        return (Turn("user", f"{told.text}\n\n{asked.text}"), *others)

    def _lay_out(
        self, pieces: list[str], spoken: list[Spoken], images: list[EncodedImage]
    ) -> tuple[str, list[tuple[int, int]]]:
        """The whole text, one mark per image, and the span in it of all that is spoken."""
        mark = self.template.image_mark
        shown = sum(piece.count(mark) for piece in pieces)
        if shown != len(images):
            raise ModelError(f"the chat template shows {shown} of {len(images)} images")
        left = iter(images)
        text, spans = "", []
        for number, piece in enumerate(pieces):
            head, *tails = piece.split(mark)
            text += head
            for tail in tails:
                image = next(left)
                text += image.before + mark + image.after + tail
            if number < len(spoken):
                spans.append((len(text), len(text) + len(spoken[number].text)))
                text += spoken[number].text
        return text, spans

    def _encode(
        self,
        laid_out: tuple[str, list[tuple[int, int]]],
        spoken: list[Spoken],
        end: str,
        images: list[EncodedImage],
    ) -> Encoding:
        text, spans = laid_out
        tokens = self._spell_out(text, self._tokenize(text), spans)
        labeled = np.zeros(len(tokens.ids), bool)
        for (start, stop), one in zip(spans, spoken, strict=True):
            if one.role == "assistant":
                # The blank before an answer is the answer's, be it a token of its own or not.
                start -= text[:start].endswith(" ")
                labeled |= (tokens.ends > start) & (tokens.starts < stop + len(end))
        users = [span for span, one in zip(spans, spoken, strict=True) if one.role == "user"]
        first = (users or spans or [(0, 0)])[0][0]
        return self._expand(tokens.ids, labeled, tokens.ends > first, images)

    def _tokenize(self, text: str) -> _Tokens:
        """All tokens, the tokenizer's own first one (BOS) too, unless the template wrote it."""
        out = self.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
        ids = np.array(out["input_ids"], np.int64)
        starts, ends = np.array(out["offset_mapping"], np.int64).reshape(-1, 2).T
        if self._bos is None or (len(ids) and ids[0] == self._bos):
            return _Tokens(ids, starts, ends)
        return _Tokens(np.append(self._bos, ids), np.append(0, starts), np.append(0, ends))

    def _spell_out(self, text: str, tokens: _Tokens, spans: list[tuple[int, int]]) -> _Tokens:
        """Replace control tokens that somebody typed by ordinary tokens of the same text."""
        special = np.isin(tokens.ids, self.control_ids) & (tokens.ends > tokens.starts)
        typed = np.zeros(len(tokens.ids), bool)
        for start, stop in spans:
            typed |= special & (tokens.starts >= start) & (tokens.ends <= stop)
        if not typed.any():
            return tokens
        plain = [
            self._as_text(text[start:stop]) if is_typed else [int(token)]
            for token, start, stop, is_typed in zip(
                tokens.ids, tokens.starts, tokens.ends, typed, strict=True
            )
        ]
        counts = [len(ids) for ids in plain]
        return _Tokens(
            np.array([token for ids in plain for token in ids], np.int64),
            np.repeat(tokens.starts, counts),
            np.repeat(tokens.ends, counts),
        )

    def _as_text(self, typed: str) -> list[int]:
        """Ordinary tokens of a text that is a control token."""
        out = self.tokenizer(  # behind a line's end, where no blank is put in front of it
            "\n" + typed,
            add_special_tokens=False,
            split_special_tokens=True,
            return_offsets_mapping=True,
        )
        pairs = zip(out["input_ids"], out["offset_mapping"], strict=True)
        return [token for token, (start, _) in pairs if start > 0]

    def _expand(
        self,
        ids: np.ndarray,
        labeled: np.ndarray,
        spoken: np.ndarray,
        images: list[EncodedImage],
    ) -> Encoding:
        """Put each image's run of tokens where its mark is, and cut at the maximum length."""
        marks = np.flatnonzero(ids == self.mark_id)[: len(images)]
        if len(marks) != len(images):
            raise ModelError(f"the tokenizer keeps {len(marks)} of {len(images)} image marks")
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
        labels = np.where(np.repeat(labeled, counts) & ~run, full, IGNORE)
        after = np.arange(total) >= ends[marks[0]] if len(marks) else np.repeat(spoken, counts)
        return Encoding(
            full[:length],
            labels[:length],
            (run & (full == self.image_id))[:length],
            (after & ~run)[:length],
            kept,
            length < total,
        )
