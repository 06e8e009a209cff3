"""Metrics of generated answers, and the callback that keeps the score."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from coincide_pl.evaluation.evaluate import Evaluate
    from coincide_pl.evaluation.metrics import (
        MME,
        AnswerMetric,
        CircularChoice,
        ExactMatch,
        MultipleChoice,
        VQAAccuracy,
        YesNo,
    )

__all__ = [
    "MME",
    "AnswerMetric",
    "CircularChoice",
    "Evaluate",
    "ExactMatch",
    "MultipleChoice",
    "VQAAccuracy",
    "YesNo",
]


def __getattr__(name: str) -> object:
    """Loads a public name when it is asked for: torchmetrics and Lightning take seconds."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    file = "evaluate" if name == "Evaluate" else "metrics"
    return getattr(import_module(f"{__name__}.{file}"), name)
