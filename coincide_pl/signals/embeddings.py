"""Hidden states of the last layer, after the final norm, as an embedding of each sample."""

from __future__ import annotations

import torch
from torch import Tensor

from coincide_pl.signals.forward import Forward, ModelFacts, Needs, needed
from coincide_pl.signals.signal import Signal, StoredAs


class LastToken(Signal):
    """The hidden state at a sample's last real token."""

    name = "last_token"
    dtype: StoredAs = "float16"

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A hidden state."""
        return (model.hidden_size,)

    @property
    def needs(self) -> Needs:
        """The last layer's hidden states."""
        return Needs(hidden=True)

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, H]; padding may stand on either side."""
        hidden, mask = needed(forward.hidden, "hidden states"), forward.batch.attention_mask
        places = torch.arange(hidden.shape[1], device=hidden.device)
        last = (places * mask).argmax(1)  # [B]
        return hidden[torch.arange(len(hidden), device=hidden.device), last].float()


class MeanToken(Signal):
    """The mean hidden state over a sample's real tokens."""

    name = "mean_token"
    dtype: StoredAs = "float16"

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A hidden state."""
        return (model.hidden_size,)

    @property
    def needs(self) -> Needs:
        """The last layer's hidden states."""
        return Needs(hidden=True)

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, H]; padding may stand on either side."""
        hidden, mask = needed(forward.hidden, "hidden states"), forward.batch.attention_mask
        real = mask.unsqueeze(1).float()  # [B, 1, T]
        return (real @ hidden.float())[:, 0] / real.sum(2)
