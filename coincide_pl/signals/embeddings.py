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
        return last_real(needed(forward.hidden, "hidden states"), forward.batch.attention_mask)


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


def last_real(states: Tensor, mask: Tensor) -> Tensor:
    """The states [B, T, H] at the last real token of each row of a mask [B, T]: float32 [B, H]."""
    places = torch.arange(states.shape[1], device=states.device)
    last = (places * mask).argmax(1)  # [B]
    return states[torch.arange(len(states), device=states.device), last].float()
