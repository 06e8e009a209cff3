"""What decoder layers do at answer tokens: where they look, and which neurons are active.

As MAGIC reads them (arXiv 2605.26004). Layers are counted from 0; the paper does not say from
where, so its 8, 12, 16, 20 are taken as they stand.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from coincide_pl.data.encoding import IGNORE
from coincide_pl.errors import SignalsError
from coincide_pl.signals.forward import Forward, LayerOutput, ModelFacts, Needs
from coincide_pl.signals.signal import Signal

LAYERS = (8, 12, 16, 20)
"""MAGIC's layers of 24."""


class BridgingRelevance(Signal):
    """Bridging relevance b_i: how much, and at how few places, answers look at the image (eq. 8).

        b_i = mean over layers and answer tokens t of (Σ_v Ā_tv) (1 - e_t / log N_v)

    Ā are the attention weights averaged over heads, v the N_v image tokens of all images, and e_t
    the entropy of the weights on them (eq. 7). A sample without an image or an answer has 0. One
    image token has no entropy to be divided by log 1: it counts as one place.

    The weights take 4 T² bytes a sample of T tokens and layer while a batch is read; only these
    layers compute them, one sample's heads at a time.
    """

    name = "bridging_relevance"

    def __init__(self, layers: Sequence[int] = LAYERS) -> None:
        """Checks the layers.

        Args:
            layers: decoder layers that are read, counted from 0 (the paper: 8, 12, 16, 20 of 24).

        Raises:
            SignalsError: no layers, or one twice.
        """
        self.layers = checked(layers)

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def needs(self) -> Needs:
        """The attention weights of its layers."""
        return Needs({LayerOutput("attention_weights", layer) for layer in self.layers})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]."""
        batch = forward.batch
        answers = batch.labels != IGNORE  # [B, T]
        image = batch.image_mask
        places = image.sum(1)
        most = places.clamp(min=2).float().log()[:, None]  # log N_v
        total = torch.zeros(len(places), device=places.device)
        for layer in self.layers:
            weights = forward.output("attention_weights", layer) * image[:, None]  # [B, T, T]
            mass = weights.sum(2)
            shares = weights / mass.clamp(min=torch.finfo(mass.dtype).tiny)[..., None]
            entropy = torch.special.entr(shares).sum(2)
            total += (mass * (1 - entropy / most) * answers).sum(1)
        return total / (len(self.layers) * answers.sum(1).clamp(min=1))


class SkillNeurons(Signal):
    """The neurons of the MLPs that are the most active over a sample's answer tokens (eq. 9, 10).

    A neuron's activation is what the down projection is given, so a gated MLP's is gate times up;
    the largest means come first, of equal ones the lower number. A sample without an answer has -1.
    """

    name = "skill_neurons"

    def __init__(self, layers: Sequence[int] = LAYERS, top: int = 3) -> None:
        """Checks the layers.

        Args:
            layers: decoder layers that are read, counted from 0 (the paper: 8, 12, 16, 20 of 24).
            top: number of neurons of each layer that are kept; the paper keeps 64, and its
                signatures use at most 3.

        Raises:
            SignalsError: no layers, one twice, or no neurons.
        """
        self.layers = checked(layers)
        if top < 1:
            raise SignalsError(f"top: {top} must be at least 1")
        self.top = top

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """Numbers of neurons, [layers, top]."""
        return (len(self.layers), self.top)

    @property
    def needs(self) -> Needs:
        """The activations inside the MLPs of its layers."""
        return Needs({LayerOutput("mlp_activation", layer) for layer in self.layers})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, layers, top], whole numbers, which float32 holds up to 2^24."""
        answers = forward.batch.labels != IGNORE
        mask = answers.unsqueeze(1).float()  # [B, 1, T]
        found = []
        for layer in self.layers:
            active = forward.output("mlp_activation", layer).float()  # [B, T, F]
            if active.shape[2] < self.top:
                raise SignalsError(f"top: {self.top} of the {active.shape[2]} neurons of a layer")
            means = (mask @ active)[:, 0] / mask.sum(2).clamp(min=1)  # [B, F]
            found.append(means.sort(dim=1, descending=True, stable=True).indices[:, : self.top])
        neurons = torch.stack(found, 1).float()
        return neurons.where(answers.any(1)[:, None, None], torch.full((), -1.0))


def checked(layers: Sequence[int]) -> list[int]:
    """Layers as a list.

    Raises:
        SignalsError: there are none, or one is there twice.
    """
    if not layers or len(set(layers)) != len(layers):
        raise SignalsError(f"layers: {list(layers)} must be different layers, and at least one")
    return list(layers)
