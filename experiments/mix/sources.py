"""The sources of the mix, their shares, and what they are made of."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from asking import (
    Turns,
    ask_bars,
    ask_count,
    ask_describe,
    ask_kind,
    ask_name,
    ask_number,
    ask_shape,
    ask_spatial,
    ask_table,
    ask_text,
    ask_turns,
    ask_word,
    ask_yes_no,
)
from subjects import (
    Subject,
    draw_alone,
    draw_bars,
    draw_digits,
    draw_emoji,
    draw_kinds,
    draw_problem,
    draw_shape,
    draw_table,
    draw_word,
)


@dataclass(frozen=True)
class Source:
    """One source of the mix.

    Attributes:
        share: of the training data, in percent.
        licence: of what its pictures are made of.
        draws: makes what is asked about, for a split.
        asks: makes questions and answers about a picture.
        questions: how many samples share a picture in the training data.
    """

    share: float
    licence: str
    draws: Callable[[random.Random, str], Subject]
    asks: Callable[[random.Random, Any], Turns]
    questions: int


OPENMOJI, OWN = "CC BY-SA 4.0 (OpenMoji)", "made here"
SOURCES = {
    "name": Source(12.9, OPENMOJI, draw_alone, ask_name, 2),
    "yes or no": Source(12.5, OPENMOJI, partial(draw_emoji, side=2, low=1, high=4), ask_yes_no, 5),
    "describe": Source(12.0, OPENMOJI, partial(draw_emoji, side=2, low=1, high=3), ask_describe, 2),
    "easy-VQA": Source(12.0, "MIT (easy-VQA)", draw_shape, ask_shape, 8),
    "turns": Source(11.7, OPENMOJI, partial(draw_emoji, side=2, low=2, high=4), ask_turns, 2),
    "spatial": Source(10.8, OPENMOJI, partial(draw_emoji, side=2, low=2, high=4), ask_spatial, 5),
    "sort": Source(9.9, OPENMOJI, partial(draw_alone, unseen=True), ask_kind, 3),
    "count": Source(7.2, OPENMOJI, draw_kinds, ask_count, 2),
    "text": Source(6.1, OWN, draw_problem, ask_text, 1),
    "words": Source(2.0, "DejaVu, STIX and Computer Modern fonts", draw_word, ask_word, 1),
    "bars": Source(1.3, OWN, draw_bars, ask_bars, 2),
    "digits": Source(1.0, "BSD-3-Clause (scikit-learn)", draw_digits, ask_number, 1),
    "table": Source(0.6, OWN, draw_table, ask_table, 2),
}
"""Shares fall as those of LLaVA-1.5's sources do, from 24 to 1.4 percent there."""
