"""DICS's consistencies of image, question and answer (Hong et al., "DICS: Exploring Data
Intrinsic Consistency for Visual Instruction Selection").

Turn by turn, the loss is a mean over the tokens weighted by what they are (eq. 2): 1, and 0.1 for
function words and punctuation; see `words`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coincide_pl.data.rewriting import QUESTION, QUESTION_BY_ANSWER, WITHOUT_IMAGE
from coincide_pl.errors import SignalsError
from coincide_pl.signals.forward import Forward, ModelFacts, Needs, lined_up
from coincide_pl.signals.rewritten import NLL
from coincide_pl.signals.signal import Signal
from coincide_pl.signals.words import functional

LOSSES = Needs(token_values={NLL})


class Consistency(Signal):
    """How much likelier what is said becomes by something more; a subclass says by what."""

    def __init__(self, function_weight: float = 0.1) -> None:
        """Checks the weight.

        Args:
            function_weight: weight of a function word's or punctuation's tokens, where others have
                1 (the paper: 0.1, eq. 7; 1 for a plain mean).

        Raises:
            SignalsError: a weight that is not positive.
        """
        if not function_weight > 0:
            raise SignalsError(f"function_weight: {function_weight} must be positive")
        self.function_weight = function_weight

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A number."""
        return ()

    def gains(self, more: Forward, less: Forward) -> Tensor:
        """exp(L_w(less) - L_w(more)), the mean over the turns of each sample.

        Args:
            more: the pass that knows more.
            less: the pass that knows less, over what is the same to be said.

        Returns:
            float32 [B]; 1 where there is no image, or nothing is left to be said.
        """
        batch = more.batch
        losses, counts = more.answer_values(NLL)  # [B, R]
        others, their_counts = less.answer_values(NLL)
        width = min(losses.shape[1], others.shape[1])
        kept = torch.minimum(counts, their_counts)
        words = functional(batch.input_ids, more.tokenizer)[:, 1:]
        weights = torch.where(words, self.function_weight, 1.0).double()
        weights = lined_up(weights[more.answers], more.answers)[:, :width]
        weights *= torch.arange(width, device=kept.device) < kept[:, None]
        turns = lined_up(_turns(more.answers)[more.answers], more.answers)[:, :width]
        gains = weights * (others[:, :width] - losses[:, :width])
        sums, totals = torch.zeros(2, len(kept), width + 1, dtype=torch.float64, device=kept.device)
        sums.scatter_add_(1, turns, gains)
        totals.scatter_add_(1, turns, weights)
        said = totals > 0
        ratios = (sums / totals.where(said, 1)).exp() * said
        means: Tensor = ratios.sum(1) / said.sum(1).clamp(min=1)
        there: Tensor = (batch.image_counts > 0) & said.any(1)
        return torch.where(there, means.float(), torch.ones(()))


class VisualConsistency(Consistency):
    """VIC = exp(L_w(y | x) - L_w(y | x, I)): how much likelier the image makes the answer (eq. 1).

    The paper masks the image's tokens in the sequence; here they are not in it. Several turns have
    the mean of theirs; a sample without an image has 1.
    """

    name = "visual_consistency"

    @property
    def needs(self) -> Needs:
        """The loss at each answer token, with and without the image."""
        return LOSSES | Needs(passes={WITHOUT_IMAGE: LOSSES})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]."""
        return self.gains(forward, forward.another(WITHOUT_IMAGE))


class ResponseConsistency(Consistency):
    """RIC = exp(L_w(x | I) - L_w(x | y, I)): how much likelier the answer makes the question (eq.
    4).

    The model is asked for the question in the paper's words (appendix A.3). Questions of several
    turns are asked for one after another in one conversation, which the paper leaves open, and have
    the mean; a sample without an image has 1.
    """

    name = "response_consistency"

    @property
    def needs(self) -> Needs:
        """The loss at each token of the questions, by two prompts."""
        return Needs(passes={QUESTION: LOSSES, QUESTION_BY_ANSWER: LOSSES})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]."""
        return self.gains(forward.another(QUESTION_BY_ANSWER), forward.another(QUESTION))


def _turns(answers: Tensor) -> Tensor:
    """The turn that each place belongs to, counted from 0: int64 [B, T - 1] for answers of it."""
    first = answers.clone()
    first[:, 1:] &= ~answers[:, :-1]
    return (first.cumsum(1) - 1).clamp(min=0)
