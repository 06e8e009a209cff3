"""What a signal may need of a model's pass over a batch, and what the pass then gives it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Set
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar

import torch
from torch import Tensor

from coincide_pl.data.encoding import IGNORE
from coincide_pl.data.rewriting import Rewriting
from coincide_pl.errors import SignalsError

if TYPE_CHECKING:
    from coincide_pl.data.collation import Batch

T = TypeVar("T")
OutputKind = Literal[
    "attention_output", "mlp_output", "mlp_activation", "block_output", "attention_weights"
]
"""What a decoder layer can be read at: the output projection of its attention [B, T, H], its MLP
[B, T, H], what the MLP's down projection is given [B, T, F], the whole layer [B, T, H], and its
attention weights averaged over the heads, float32 [B, T, T], from each token (row) to all before it
(columns)."""


@dataclass(frozen=True)
class ModelFacts:
    """Sizes of a model, from which a signal tells the shape of its rows.

    Attributes:
        hidden_size: H, width of the text decoder.
        num_layers: decoder layers.
        num_heads: attention heads of a decoder layer.
        intermediate_size: width inside the decoder's MLP.
        vocab_size: tokens that the head tells apart.
        projection_size: width of CLIP's embeddings; 0 where there are none.
    """

    hidden_size: int = 0
    num_layers: int = 0
    num_heads: int = 0
    intermediate_size: int = 0
    vocab_size: int = 0
    projection_size: int = 0


@dataclass(frozen=True)
class LayerOutput:
    """One place in a decoder: a kind of output, and the layer, from 0 on, or from the last, -1."""

    kind: OutputKind
    layer: int


class Predictions:
    """What a model predicts where l answer tokens stand.

    Attributes:
        log_p: float32 [l, V], log-softmax over the vocabulary.
        targets: int64 [l, 1], the tokens that stand there.
    """

    def __init__(self, log_p: Tensor, targets: Tensor) -> None:
        """Keeps a chunk of predictions.

        Args:
            log_p: float32 [l, V].
            targets: int64 [l, 1].
        """
        self.log_p, self.targets = log_p, targets

    @cached_property
    def right_and_others(self) -> tuple[Tensor, Tensor]:
        """Probability [l] of the token that stands there, and [l, V] of all others, its own 0."""
        p = self.log_p.exp()
        right = p.gather(1, self.targets)[:, 0]
        return right, p.scatter_(1, self.targets, 0.0)


TokenValue: TypeAlias = Callable[[Predictions], Tensor]
"""A function of the predictions of l answer tokens: float32 [l]. The head runs once for all."""


@dataclass(frozen=True)
class GradientRead:
    """What is read of each sample's gradient by the weights of LoRA adapters.

    Attributes:
        target_modules: last names of the linear layers whose adapters count; all by default.
        adam: whether the direction of a step of Adam takes the gradient's place.
        size: width of its projection; None for the norm of the gradient itself.
        seed: of the projection.
    """

    target_modules: tuple[str, ...] = ()
    adam: bool = False
    size: int | None = None
    seed: int = 0


@dataclass(frozen=True)
class Needs:
    """What a pass must give; `a | b` is what both need.

    Attributes:
        outputs: outputs of decoder layers.
        hidden: whether the last layer's states after the final norm, which the head reads.
        token_values: functions of what is predicted at answer tokens.
        passes: what is needed of further passes, over the same conversations in other forms.
        embeddings: whether embeddings of image and text, by a model that makes them apart.
        scores: whether the outputs of a score net that was trained beside the model.
        vision: whether features of images, by a model that sees nothing else.
        gradients: what is needed of each sample's gradient.
    """

    outputs: Set[LayerOutput] = frozenset()
    hidden: bool = False
    token_values: Set[TokenValue] = frozenset()
    passes: Mapping[Rewriting, Needs] = field(default_factory=dict)
    embeddings: bool = False
    scores: bool = False
    gradients: Set[GradientRead] = frozenset()
    vision: bool = False

    def __post_init__(self) -> None:
        """Sets that are given become ones that never change."""
        object.__setattr__(self, "outputs", frozenset(self.outputs))
        object.__setattr__(self, "token_values", frozenset(self.token_values))
        object.__setattr__(self, "gradients", frozenset(self.gradients))

    def __or__(self, other: Needs) -> Needs:
        """What is needed for both."""
        return Needs(
            self.outputs | other.outputs,
            self.hidden or other.hidden,
            self.token_values | other.token_values,
            {
                form: union(one.passes[form] for one in (self, other) if form in one.passes)
                for form in (*self.passes, *other.passes)
            },
            self.embeddings or other.embeddings,
            self.scores or other.scores,
            self.gradients | other.gradients,
            self.vision or other.vision,
        )


def union(needs: Iterable[Needs]) -> Needs:
    """What is needed for all of several."""
    together = Needs()
    for each in needs:
        together |= each
    return together


@dataclass
class Forward:
    """What a pass over a batch of B conversations gave; only what was needed is there.

    Attributes:
        given: the batch, where the model read one.
        outputs: by place, see `OutputKind`.
        hidden: [B, T, H], what the head reads.
        token_values: float32 [L] by function, at the batch's L answer tokens, row by row.
        passes: further passes, over the same conversations in other forms.
        image_embeddings: float32 [B, D] of norm 1; zeros where a sample has no image.
        text_embeddings: float32 [B, D] of norm 1.
        scores: float32 [B], outputs of a score net.
        gradients: float32 [B, size], or [B] for norms, by what is read of them.
        told_by: the tokenizer that made the tokens, where the module that reads them has one.
    """

    given: Batch | None
    outputs: dict[LayerOutput, Tensor] = field(default_factory=dict)
    hidden: Tensor | None = None
    token_values: dict[TokenValue, Tensor] = field(default_factory=dict)
    passes: dict[Rewriting, Forward] = field(default_factory=dict)
    image_embeddings: Tensor | None = None
    text_embeddings: Tensor | None = None
    scores: Tensor | None = None
    gradients: dict[GradientRead, Tensor] = field(default_factory=dict)
    told_by: Any = None

    @property
    def tokenizer(self) -> Any:
        """The tokenizer that made the tokens."""
        return needed(self.told_by, "a tokenizer")

    @property
    def batch(self) -> Batch:
        """What the model read: tokens, labels and masks."""
        return needed(self.given, "a batch")

    def output(self, kind: OutputKind, layer: int) -> Tensor:
        """The output of a decoder layer; see `OutputKind`."""
        return needed(self.outputs.get(LayerOutput(kind, layer)), f"{kind} of layer {layer}")

    def another(self, form: Rewriting) -> Forward:
        """The pass over the same conversations in another form."""
        return needed(self.passes.get(form), f"the pass {form.record.__name__}")

    def gradient(self, read: GradientRead) -> Tensor:
        """Projected gradients [B, size] or their norms [B]."""
        return needed(self.gradients.get(read), "gradients")

    @property
    def answers(self) -> Tensor:
        """Where a column's next token is an answer token: bool [B, T - 1]."""
        return self.batch.labels[:, 1:] != IGNORE

    def answer_mean(self, value: TokenValue, empty: float = 0.0) -> Tensor:
        """The mean of a value over each sample's answer tokens, summed in float64.

        Args:
            value: a function that the signal's `needs` names.
            empty: what a sample without an answer token has.

        Returns:
            float32 [B].
        """
        found = self.token_values.get(value)
        values = needed(found, f"values of {getattr(value, '__name__', value)}")
        answers = self.answers
        grid = torch.zeros(answers.shape, dtype=torch.float64, device=values.device)
        grid[answers] = values.double()
        counts = answers.sum(1)
        means = (grid.sum(1) / counts.clamp(min=1)).float()
        return means.masked_fill(counts == 0, empty)

    def answer_values(self, value: TokenValue) -> tuple[Tensor, Tensor]:
        """A value at each sample's answer tokens, one behind the other.

        Two forms of a conversation differ in where the tokens of an answer stand. Counted so, the
        n-th of one is the n-th of the other, as far as the maximum length left it in both.

        Args:
            value: a function that the signal's `needs` names.

        Returns:
            float64 [B, R], 0 behind a sample's last; and how many there are, int64 [B].
        """
        found = self.token_values.get(value)
        values = needed(found, f"values of {getattr(value, '__name__', value)}")
        return lined_up(values.double(), self.answers), self.answers.sum(1)


def lined_up(values: Tensor, where: Tensor) -> Tensor:
    """Values of rows of tokens, moved to the front of their rows.

    Args:
        values: [L], row by row.
        where: bool [B, T], the L tokens that they belong to.

    Returns:
        [B, R], 0 behind a row's last; R is the most that a row has.
    """
    counts = where.sum(1)
    ranks = torch.arange(int(counts.max()) if len(counts) else 0, device=where.device)
    there = ranks < counts[:, None]  # [B, R]
    out = torch.zeros(there.shape, dtype=values.dtype, device=values.device)
    out[there] = values
    return out


def needed(found: T | None, what: str) -> T:
    """A part of a pass, which must be there.

    Raises:
        SignalsError: no signal asked for it.
    """
    if found is None:
        raise SignalsError(f"a signal reads {what}, which its `needs` does not ask for")
    return found
