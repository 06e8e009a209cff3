"""Singular values of what a sample's tokens make: their attention on the image, and their states.

Each sample's matrix is taken alone and only its figures are kept, so memory does not grow with what
is stored. Singular values come from the eigenvalues of the smaller Gram matrix, in float64: small
ones are known to about 1e-8 of the largest.
"""

from __future__ import annotations

import torch
from torch import Tensor

from coincide_pl.errors import SignalsError
from coincide_pl.signals.embeddings import last_real
from coincide_pl.signals.forward import Forward, LayerOutput, ModelFacts, Needs
from coincide_pl.signals.signal import Signal, StoredAs


class CrossAttention(Signal):
    """XMAS's alignment of text and image: top singular values of the cross-modal attention.

    Naharas et al., arXiv 2510.01454, and the authors' `get_trajectory.py`: the attention weights
    from text tokens after the image (rows) to image tokens (columns) are summed over decoder
    layers, and the largest singular values of the sum kept, zeros where it has fewer. A sample
    without an image has zeros. Weights are the model's own here, averaged over its heads; the
    authors make weights of their own from the projections of queries and keys, all heads as one,
    without positions and mask.

    A pass holds 4 B T² bytes for each layer.
    """

    name = "cross_attention"
    dtype: StoredAs = "float32"

    def __init__(self, layers: list[int], top: int = 5, name: str = "cross_attention") -> None:
        """Checks the layers.

        Args:
            layers: decoder layers that are summed, counted from 0; the authors sum all 24.
            top: number of singular values that are kept.
            name: of the array in the store.

        Raises:
            SignalsError: no layers, one twice, or no singular values.
        """
        if not layers or len(set(layers)) != len(layers):
            raise SignalsError(f"layers: {layers} must be different layers, and at least one")
        if top < 1:
            raise SignalsError(f"top: {top} must be positive")
        self.layers, self.top, self.name = list(layers), top, name

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """As many singular values as are kept."""
        return (self.top,)

    @property
    def needs(self) -> Needs:
        """The attention weights of its layers."""
        return Needs({LayerOutput("attention_weights", layer) for layer in self.layers})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, top], from the largest down."""
        batch = forward.batch
        weights = [forward.output("attention_weights", layer) for layer in self.layers]
        out = weights[0].new_zeros(len(batch.rows), self.top)
        for row, (text, image) in enumerate(zip(batch.text_mask, batch.image_mask, strict=True)):
            if image.any():
                blocks = torch.stack([each[row][text][:, image].double() for each in weights])
                values = singular_values(blocks.sum(0))[: self.top]
                out[row, : len(values)] = values.float()
        return out


class TokenSpectrum(Signal):
    """DataTailor's figures of a sample's tokens: entropy and largest share of singular values.

    Yu et al., arXiv 2412.06293, and the authors' `modeling_llama.py`: for the singular values σ of
    the [T, H] states of a sample's real tokens after the last decoder layer, before the final norm,
    and p = σ / Σ σ, the entropy -Σ p log p (informativeness) and max p (tau). The eigenvalues of a
    T × T matrix for each sample can take as long as the pass.
    """

    name = "token_spectrum"
    dtype: StoredAs = "float32"

    def __init__(self, layer: int = -1, name: str = "token_spectrum") -> None:
        """Sets the layer.

        Args:
            layer: decoder layer whose output is read, counted from 0, or from the last, -1.
            name: of the array in the store.
        """
        self.layer, self.name = layer, name

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """Two numbers."""
        return (2,)

    @property
    def needs(self) -> Needs:
        """The output of its layer."""
        return Needs({LayerOutput("block_output", self.layer)})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, 2]: the entropy, and the largest share."""
        states = forward.output("block_output", self.layer)
        real = forward.batch.attention_mask.bool()
        figures = []
        for each, mask in zip(states, real, strict=True):
            values = singular_values(each[mask].double())
            shares = values / values.sum()
            figures.append(torch.stack([torch.special.entr(shares).sum(), shares.max()]))
        return torch.stack(figures).float()


class LastTokenState(Signal):
    """DataTailor's feature: the state at a sample's last real token, before the final norm."""

    name = "last_token_state"
    dtype: StoredAs = "float16"

    def __init__(self, layer: int = -1, name: str = "last_token_state") -> None:
        """Sets the layer.

        Args:
            layer: decoder layer whose output is read, counted from 0, or from the last, -1.
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
        """float32 [B, H]; padding may stand on either side."""
        return last_real(forward.output("block_output", self.layer), forward.batch.attention_mask)


def singular_values(matrix: Tensor) -> Tensor:
    """Singular values of a matrix [n, m], float64 [min(n, m)], from the largest down."""
    gram = matrix @ matrix.T if len(matrix) <= matrix.shape[1] else matrix.T @ matrix
    squares: Tensor = torch.linalg.eigvalsh(gram)
    return squares.clamp(min=0).sqrt().flip(0)
