"""What an encoder makes of a picture and a conversation that are always the same, as digests."""

from __future__ import annotations

import hashlib
from typing import Protocol

import numpy as np
from PIL import Image

from coincide_pl.data.encoding import EncodedImage, Encoding
from coincide_pl.data.record import IMAGE_MARK, Record, Turn

QUESTION, ANSWER = Turn("user", f"{IMAGE_MARK}\nWhat is this?"), Turn("assistant", "A probe.")
DIGITS = 3
"""Decimals of a pixel that count; what is beyond them may differ from machine to machine."""


class Encodes(Protocol):
    """What turns records into tokens, and images into what a model reads of them."""

    def encode_image(self, image: Image.Image) -> EncodedImage: ...  # noqa: D102

    def encode(self, record: Record, images: list[EncodedImage]) -> Encoding: ...  # noqa: D102


def encoding_digests(encoder: Encodes) -> dict[str, str]:
    """Digests of an encoder's work, which differ once it does anything in another way.

    They see what no option and no file of a checkpoint shows: a processor or a library of another
    version, a chat template that writes the day.

    Args:
        encoder: of a run.

    Returns:
        By what is to be said of a difference: 32 hexadecimal digits.
    """
    pixels = np.add.outer(np.arange(48) * 3, np.arange(64))[..., None] * np.array([1, 2, 3])
    image = encoder.encode_image(Image.fromarray((pixels % 256).astype(np.uint8)))
    seen = hashlib.blake2b(image.tokens.tobytes(), digest_size=16)
    for name, value in sorted(image.inputs.items()):
        array = value.numpy()
        rounded = np.round(array, DIGITS) + 0.0 if array.dtype.kind == "f" else array
        seen.update(f"{name} {array.dtype} {array.shape}".encode() + rounded.tobytes())
    read = hashlib.blake2b(digest_size=16)
    encoding = encoder.encode(Record("probe", ("probe",), (QUESTION, ANSWER)), [image])
    for part in (encoding.input_ids, encoding.labels, encoding.image_mask, encoding.text_mask):
        read.update(part.tobytes())
    return {
        "way of preparing images": seen.hexdigest(),
        "chat template or tokenizer": read.hexdigest(),
    }
