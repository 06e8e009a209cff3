"""How well a model predicts the answer, or the question, in another form of the conversation.

The values in two forms can be compared where they count the same tokens: those without the image,
or with a blurred one, count the answer tokens that the conversation itself has kept too. A sample
without an image has the same values in all forms that change its image alone.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import ClassVar

import torch
from torch import Tensor

from coincide_pl.data.rewriting import (
    QUESTION,
    QUESTION_BY_ANSWER,
    WITHOUT_IMAGE,
    WITHOUT_QUESTION,
    Blur,
    Rewriting,
    unchanged,
)
from coincide_pl.errors import SignalsError
from coincide_pl.signals.forward import Forward, ModelFacts, Needs, needed
from coincide_pl.signals.likelihood import NegativeLogLikelihood
from coincide_pl.signals.signal import Signal, StoredAs

NLL = NegativeLogLikelihood.value
"""Negative log-likelihood -log p(y) at each answer token."""


class RewrittenLoss(Signal):
    """Mean negative log-likelihood of what is answered in another form; a subclass says which."""

    @property
    @abstractmethod
    def form(self) -> Rewriting:
        """The form of the conversation."""

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def needs(self) -> Needs:
        """The loss at each answer token in the other form."""
        return Needs(passes={self.form: Needs(token_values={NLL})})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]; 0 where no token is left."""
        return forward.another(self.form).answer_mean(NLL)


class ImageLoss(RewrittenLoss):
    """The mean over the same answer tokens as the signal `nll`, with the image changed."""

    @property
    def needs(self) -> Needs:
        """The loss at each answer token in both forms."""
        return super().needs | Needs(token_values={NLL})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]; where there is no image, exactly the signal `nll`."""
        values, counts = forward.another(self.form).answer_values(NLL)
        kept = torch.minimum(counts, forward.answers.sum(1))
        counted = torch.arange(values.shape[1], device=kept.device) < kept[:, None]
        means = ((values * counted).sum(1) / kept.clamp(min=1)).float()
        return means.where(forward.batch.image_counts > 0, forward.answer_mean(NLL))


class NllWithoutImage(ImageLoss):
    """Mean negative log-likelihood L(y | x) of the answer, the conversation read as text alone.

    VisNec (arXiv 2603.01195) and MAGIC (2605.26004, eq. 5) compare it with the signal `nll`,
    L(y | x, I).
    """

    name = "nll_without_image"

    @property
    def form(self) -> Rewriting:
        """The conversation as text alone."""
        return WITHOUT_IMAGE


class NllBlurred(ImageLoss):
    """Mean negative log-likelihood of the answer, read with blurred images (arXiv 2602.17186).

    Visual information gain is its difference to the signal `nll`: VIG = log PPL(A | Q) / PPL(A | Q,
    I), with a blurred image for no image. VIG blurs as Xing et al. (2503.13891) do, whose code has
    the numbers that are the default here.
    """

    name = "nll_blurred"

    def __init__(self, side: int | None = None, name: str = "nll_blurred") -> None:
        """Checks the blur.

        Args:
            side: of the square in pixels that the blur takes in around each pixel, an odd number;
                the Gaussian's standard deviation is one pixel less (default: by the image's width,
                501 from 2,000 pixels on, 301 from 800, 201 from 500, else 101).
            name: of the array in the store.

        Raises:
            SignalsError: a side that is not odd or not positive.
        """
        if side is not None and (side < 1 or side % 2 == 0):
            raise SignalsError(f"side: {side} must be an odd number of pixels, such as 101")
        self.side = side
        self.name = name

    @property
    def form(self) -> Rewriting:
        """The conversation with blurred images."""
        return Rewriting(unchanged, Blur(self.side))


class NllWithoutQuestion(RewrittenLoss):
    """Mean negative log-likelihood of all answers to the images alone (PreSel, arXiv 2503.07591).

    As its authors' code has it, the questions are left out, system prompts too, and the answers of
    several turns stand behind one another as one answer.
    """

    name = "nll_without_question"

    @property
    def form(self) -> Rewriting:
        """The images, and the answers to them."""
        return WITHOUT_QUESTION


class NllQuestion(RewrittenLoss):
    """Mean negative log-likelihood L(x | I) of the questions, asked for in DICS's words."""

    name = "nll_question"

    @property
    def form(self) -> Rewriting:
        """What the questions were is asked."""
        return QUESTION


class NllQuestionByAnswer(RewrittenLoss):
    """Mean negative log-likelihood L(x | y, I) of the questions, asked for by their answers."""

    name = "nll_question_by_answer"

    @property
    def form(self) -> Rewriting:
        """What the questions were is asked, and the answers are told."""
        return QUESTION_BY_ANSWER


class Instruction(Signal):
    """The mean hidden state over a sample's first question, read without the image.

    A decoder sees no later token, so no answer has a part in it. VisNec's authors embed the first
    question by a sentence encoder (all-MiniLM-L6-v2); this one costs no pass beside that of
    `nll_without_image`.
    """

    name = "instruction"
    dtype: StoredAs = "float16"
    form: ClassVar[Rewriting] = WITHOUT_IMAGE

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A hidden state."""
        return (model.hidden_size,)

    @property
    def needs(self) -> Needs:
        """The last layer's hidden states, after the norm, in the pass without the image."""
        return Needs(passes={self.form: Needs(hidden=True)})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, H]; the template's own text before the answer counts too."""
        text = forward.another(self.form)
        hidden, batch = needed(text.hidden, "hidden states"), text.batch
        begun = (batch.labels >= 0).cumsum(1) > 0  # the first answer
        question = (batch.text_mask & ~begun).unsqueeze(1).float()  # [B, 1, T]
        return (question @ hidden.float())[:, 0] / question.sum(2).clamp(min=1)
