"""Encode records for a model that reads an image and a text apart, as CLIP and SigLIP do."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from coincide_pl.data.encoding import IGNORE, EncodedImage, Encoding
from coincide_pl.data.record import IMAGE_MARK, Record


class ClipEncoder:
    """Encodes records with the processor of a CLIP or SigLIP; can be sent to worker processes.

    The text is what user and assistant say, turn after turn, without image marks. What goes beyond
    the length that the model was made for (77 tokens for CLIP, 64 for SigLIP) is left out.
    """

    def __init__(self, processor: Any, max_length: int = 2048) -> None:
        """Keeps the processor.

        Args:
            processor: of transformers, with an image processor and a tokenizer.
            max_length: in tokens; the tokenizer's own `model_max_length` where that is less.
        """
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.max_length = min(max_length, self.tokenizer.model_max_length)

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Process one image, alone; no token stands for it."""
        out = self.processor.image_processor(images=[image], return_tensors="pt")
        return EncodedImage(np.zeros(0, np.int64), "", "", 0, dict(out))

    def encode(self, record: Record, images: list[EncodedImage]) -> Encoding:
        """Encode the text of a conversation; it has no labels, and all its images are kept.

        Args:
            record: the conversation.
            images: one per image of the record.
        """
        text = conversation_text(record)
        ids = self.tokenizer(text, verbose=False)["input_ids"]
        truncated = len(ids) > self.max_length
        if truncated:  # again, for the end token to stay
            ids = self.tokenizer(text, truncation=True, max_length=self.max_length)["input_ids"]
        none = np.zeros(len(ids), bool)
        return Encoding(
            input_ids=np.array(ids, np.int64),
            labels=np.full(len(ids), IGNORE, np.int64),
            image_mask=none,
            text_mask=~none,
            num_images=len(images),
            truncated=truncated,
        )

    def encode_prompt(self, record: Record, images: list[EncodedImage]) -> Encoding:
        """There are no prompts here: the whole text."""
        return self.encode(record, images)


def conversation_text(record: Record) -> str:
    """What user and assistant say, a line each, without image marks."""
    turns = (turn for turn in record.turns if turn.role != "system")
    texts = (
        turn.text.replace(IMAGE_MARK, " ") if turn.role == "user" else turn.text for turn in turns
    )
    return "\n".join(" ".join(text.split()) for text in texts)
