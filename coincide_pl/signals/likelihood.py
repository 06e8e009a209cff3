"""How well a model predicts each sample's answer, averaged over its answer tokens.

A sample of which no answer token is left, cut at the maximum length or empty, counts as predicted
perfectly. Nothing can be learned from it, and what keeps the hardest samples keeps it last.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from coincide_pl.signals.forward import Forward, ModelFacts, Needs, Predictions
from coincide_pl.signals.signal import Signal


class AnswerMean(Signal):
    """The mean of a value over a sample's answer tokens; a subclass says which."""

    perfect: ClassVar[float] = 0.0
    """The value where the answer is predicted perfectly."""

    @staticmethod
    @abstractmethod
    def value(predictions: Predictions) -> Tensor:
        """The value float32 [l] at each of l answer tokens."""

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def needs(self) -> Needs:
        """The value at each answer token."""
        return Needs(token_values={type(self).value})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]."""
        return forward.answer_mean(type(self).value, self.perfect)


class El2n(AnswerMean):
    """Error L2-norm ‖p - onehot(y)‖₂ for probabilities p and token y (Paul et al., 2021)."""

    name = "el2n"

    @staticmethod
    def value(predictions: Predictions) -> Tensor:
        """‖p - onehot(y)‖₂, float32 [l]."""
        right, others = predictions.right_and_others
        return torch.hypot(torch.linalg.vector_norm(others, dim=1), 1 - right)


class NegativeLogLikelihood(AnswerMean):
    """Negative log-likelihood -log p(y); the mean's exponential is the answer's perplexity."""

    name = "nll"

    @staticmethod
    def value(predictions: Predictions) -> Tensor:
        """-log p(y), float32 [l]."""
        return -predictions.log_p.gather(1, predictions.targets)[:, 0]


class Margin(AnswerMean):
    """Margin p(y) - max_{v ≠ y} p(v), of one checkpoint (the margin of Pleiss et al., 2020)."""

    name = "margin"
    perfect: ClassVar[float] = 1.0

    @staticmethod
    def value(predictions: Predictions) -> Tensor:
        """p(y) - max_{v ≠ y} p(v), float32 [l]."""
        right, others = predictions.right_and_others
        return right - others.amax(1)
