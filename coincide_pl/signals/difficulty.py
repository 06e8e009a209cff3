"""Difficulties that a score net learned beside a model, as Self-Filter's selector reads them."""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from coincide_pl.signals.forward import Forward, ModelFacts, Needs, needed
from coincide_pl.signals.signal import Signal


class Difficulty(Signal):
    """How hard a score net finds a sample: the negative of its output (see `SelfFilterModule`)."""

    name = "difficulty"
    made_by: ClassVar[str] = "coincide fit --config models/self_filter"

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def needs(self) -> Needs:
        """The score net's outputs."""
        return Needs(scores=True)

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]."""
        return -needed(forward.scores, "scores")
