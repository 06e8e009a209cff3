"""Encode records for a model that reads their images alone, as DINOv2 does."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image

from coincide_pl.data.encoding import IGNORE, EncodedImage, Encoding
from coincide_pl.data.record import Record


class ImageEncoder:
    """Processes a record's images; can be sent to worker processes.

    One token stands for the text, whatever that is, so that batches have rows.
    """

    tokenizer = None

    def __init__(self, processor: Any, max_length: int = 2048) -> None:
        """Keeps the processor.

        Args:
            processor: an image processor of transformers.
            max_length: without effect; there is no text.
        """
        self.processor = processor

    def encode_image(self, image: Image.Image) -> EncodedImage:
        """Process one image, alone; no token stands for it."""
        out = self.processor(images=[image], return_tensors="pt")
        return EncodedImage(np.zeros(0, np.int64), "", "", 0, dict(out))

    def encode(self, record: Record, images: list[EncodedImage]) -> Encoding:
        """The record as its images; it has no labels.

        Args:
            record: what shows them.
            images: one per image of the record; all are kept.
        """
        return Encoding(
            input_ids=np.zeros(1, np.int64),
            labels=np.full(1, IGNORE, np.int64),
            image_mask=np.zeros(1, bool),
            text_mask=np.zeros(1, bool),
            num_images=len(images),
            truncated=False,
        )

    def encode_prompt(self, record: Record, images: list[EncodedImage]) -> Encoding:
        """There are no prompts here: the images."""
        return self.encode(record, images)
