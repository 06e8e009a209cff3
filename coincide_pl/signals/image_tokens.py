"""Image tokens in a decoder's first layers: their mean, and that of those the question looks at.

A row is zero where a sample has no image.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coincide_pl.data.encoding import IGNORE
from coincide_pl.errors import SignalsError
from coincide_pl.signals.forward import Forward, LayerOutput, ModelFacts, Needs
from coincide_pl.signals.signal import Signal, StoredAs


class MeanImageToken(Signal):
    """PRISM's feature F_i: the mean state of a sample's image tokens in a shallow layer.

    Bi et al., arXiv 2502.12119v4, average pooling. The paper says that a shallow layer of the
    language model does better than a deep one, and not which; the states are a whole layer's
    output, with the residual stream.
    """

    name = "mean_image_token"
    dtype: StoredAs = "float16"

    def __init__(self, layer: int = 0, name: str = "mean_image_token") -> None:
        """Sets the layer.

        Args:
            layer: decoder layer whose output is averaged, counted from 0.
            name: of the array in the store.
        """
        self.layer, self.name = layer, name

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A hidden state."""
        return (model.hidden_size,)

    @property
    def needs(self) -> Needs:
        """The output of its layer."""
        return Needs({LayerOutput("block_output", self.layer)})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, H]; over the tokens of all images, where there are several."""
        states = forward.output("block_output", self.layer)
        return masked_mean(states, forward.batch.image_mask)


class AttendedImageToken(Signal):
    """ScalSelect's feature: the mean state of the image tokens that the question looks at.

    Wu et al., arXiv 2602.11636, and the authors' `feature_extract_sft.py`: attention weights of a
    layer, averaged over heads and over the user's tokens, rank the image tokens. The first of them
    whose weights add up to more than `share` of all are kept, and their states after that layer
    averaged. The user's tokens are all that are neither image nor answer, the system prompt and
    the template's among them; those before the image see nothing of it. The end token of an answer
    counts as answer here and as the user's there.
    """

    name = "attended_image_token"
    dtype: StoredAs = "float16"

    def __init__(
        self, share: float = 0.9, layer: int = 0, name: str = "attended_image_token"
    ) -> None:
        """Checks the share.

        Args:
            share: part of the attention on image tokens that the kept ones hold, in (0, 1].
            layer: decoder layer, counted from 0, whose attention and output are read.
            name: of the array in the store.

        Raises:
            SignalsError: a share outside (0, 1].
        """
        if not 0 < share <= 1:
            raise SignalsError(f"share: {share} is outside (0, 1]")
        self.share, self.layer, self.name = share, layer, name

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A hidden state."""
        return (model.hidden_size,)

    @property
    def needs(self) -> Needs:
        """The attention weights and the output of its layer."""
        weights = LayerOutput("attention_weights", self.layer)
        return Needs({weights, LayerOutput("block_output", self.layer)})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, H]; the tokens of all images are ranked together."""
        batch = forward.batch
        asking = batch.attention_mask.bool() & ~batch.image_mask & (batch.labels == IGNORE)
        weights = forward.output("attention_weights", self.layer)
        kept = most_attended(weights, asking, batch.image_mask, self.share)
        return masked_mean(forward.output("block_output", self.layer), kept)


def most_attended(weights: Tensor, asking: Tensor, image: Tensor, share: float) -> Tensor:
    """The image tokens that hold a share of the attention: the fewest whose sum exceeds it.

    Args:
        weights: float32 [B, T, T], from each token (row) to those before it (columns).
        asking: bool [B, T], the tokens whose attention counts.
        image: bool [B, T], the image tokens. Where no token looks at one, all count alike.
        share: of the attention on image tokens.

    Returns:
        bool [B, T]; of equal weights the first token's goes first.
    """
    on_image = (asking.unsqueeze(1).float() @ weights)[:, 0].double() * image  # [B, T]
    unseen = on_image.sum(1, keepdim=True) == 0
    on_image = on_image.masked_fill(unseen & image, 1.0)
    on_image = on_image / on_image.sum(1, keepdim=True).clamp(min=1e-300)
    ranked = on_image.masked_fill(~image, -1.0).sort(dim=1, descending=True, stable=True)
    sums = ranked.values.clamp(min=0).cumsum(1)
    before = sums.roll(1, 1)
    before[:, 0] = 0
    kept = (before <= share) & (ranked.values >= 0)
    return torch.zeros_like(image).scatter(1, ranked.indices, kept)


def masked_mean(states: Tensor, mask: Tensor) -> Tensor:
    """Means of states [B, T, H] over the true places of a mask [B, T]: float32, zero over none."""
    weights = mask.unsqueeze(1).float()  # [B, 1, T]
    return (weights @ states.float())[:, 0] / weights.sum(2).clamp(min=1)
