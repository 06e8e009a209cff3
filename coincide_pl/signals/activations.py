"""COINCIDE's features: what the attention of some decoder layers puts out, averaged."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from coincide_pl.errors import SignalsError
from coincide_pl.signals.forward import Forward, LayerOutput, ModelFacts, Needs
from coincide_pl.signals.signal import Signal, StoredAs


class Activations(Signal):
    """Means of attention outputs over image and text tokens; see `activations`."""

    name = "activations"
    dtype: StoredAs = "float16"

    def __init__(self, layers: list[int], tanh: bool = True, name: str = "activations") -> None:
        """Checks the layers.

        Args:
            layers: decoder layers that are read, counted from 0 (the paper: 3, 7, 11, 15, 19 of
                24).
            tanh: whether means pass through tanh, as in the paper, before they are normalized.
            name: of the array in the store.

        Raises:
            SignalsError: no layers, or one twice.
        """
        if not layers or len(set(layers)) != len(layers):
            raise SignalsError(f"layers: {layers} must be different layers, and at least one")
        self.layers = list(layers)
        self.tanh = tanh
        self.name = name

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """2 * layers * hidden numbers."""
        return (2 * len(self.layers) * model.hidden_size,)

    @property
    def needs(self) -> Needs:
        """The attention outputs of its layers."""
        return Needs({LayerOutput("attention_output", layer) for layer in self.layers})

    def rows(self, forward: Forward) -> Tensor:
        """float16 [B, 2 * layers * hidden]."""
        outputs = [forward.output("attention_output", layer) for layer in self.layers]
        return activations(outputs, forward.batch.image_mask, forward.batch.text_mask, self.tanh)


def activations(
    outputs: Sequence[Tensor], image_mask: Tensor, text_mask: Tensor, tanh: bool = True
) -> Tensor:
    """COINCIDE's features of a batch: method section 3.1 of arXiv 2406.10995.

    For each layer, the output of the attention block's output projection is averaged over the image
    tokens and over the text tokens after the image; each mean v becomes tanh(v) / ‖tanh(v)‖. The
    2M vectors stand side by side, [visual, text] per layer, divided by sqrt(2M): a row has norm 1,
    or sqrt(1/2) where one modality is missing, whose half is zero.

    Args:
        outputs: M tensors [B, T, H], one per layer.
        image_mask: bool [B, T], true at image tokens.
        text_mask: bool [B, T], true at text tokens after the image.
        tanh: without it v becomes v / ‖v‖.

    Returns:
        float16 [B, 2 * M * H].
    """
    masks = torch.stack([image_mask, text_mask], 1).float()  # [B, 2, T]
    weights = masks / masks.sum(2, keepdim=True).clamp(min=1)
    means = [weights @ output.float() for output in outputs]  # M × [B, 2, H]
    stacked = torch.stack(means, 1)  # [B, M, 2, H]
    rows = F.normalize(stacked.tanh() if tanh else stacked, dim=-1)
    return (rows.flatten(1) / math.sqrt(2 * len(outputs))).half()
