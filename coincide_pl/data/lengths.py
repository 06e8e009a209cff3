"""How many tokens conversations will have, told from their texts before anything is encoded."""

from __future__ import annotations

import math

import numpy as np

from coincide_pl.data.collation import processed
from coincide_pl.data.encoding import Encoder
from coincide_pl.data.record import Record, Turn
from coincide_pl.data.records import Records

BYTES_PER_TOKEN, TOKENS_PER_IMAGE = 4, 576
"""Good enough where lengths only put like with like."""
SAMPLED_IMAGES = 16
"""How many images are opened to tell how many tokens one becomes."""


def rough_lengths(records: Records, tokens_per_image: int = TOKENS_PER_IMAGE) -> np.ndarray:
    """Lengths in tokens, int64 [N], in proportion to the work rather than exact.

    Args:
        records: the data.
        tokens_per_image: what an image adds to a conversation.
    """
    lengths: np.ndarray = (
        records.text_lengths // BYTES_PER_TOKEN + tokens_per_image * records.image_counts
    )
    return lengths


def expected_lengths(records: Records, encoder: Encoder, max_length: int) -> np.ndarray:
    """Lengths in tokens, int64 [N], near enough to fill batches up to a number of tokens.

    Args:
        records: the data.
        encoder: tells how many tokens a template and an image take.
        max_length: tokens at which conversations are cut.
    """
    empty = Record("", (), (Turn("user", "?"), Turn("assistant", "?")))
    frame = len(encoder.encode(empty, []).input_ids)
    rough = frame + rough_lengths(records, _tokens_per_image(records, encoder))
    lengths: np.ndarray = np.minimum(rough, max_length)
    return lengths


def _tokens_per_image(records: Records, encoder: Encoder) -> int:
    """The mean over some images, spread over the data; 0 where there are none."""
    shown = np.flatnonzero(records.image_counts > 0)
    runs = [
        len(processed(encoder, records.image_root, path).tokens)
        for row in shown[:: max(1, len(shown) // SAMPLED_IMAGES)][:SAMPLED_IMAGES]
        for path in records[row].images[:1]
    ]
    return math.ceil(np.mean(runs)) if runs else 0
