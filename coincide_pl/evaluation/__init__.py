"""Metrics of generated answers, and the callback that keeps the score."""

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
