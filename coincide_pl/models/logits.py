"""What happens to logits between a model's head and the softmax."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel


def of_the_head(logits: Tensor, model: PreTrainedModel) -> Tensor:
    """The logits of a forward pass, from what the head alone gives.

    Some models scale them, or cap them softly; see also `possible`.
    """
    config = model.config.get_text_config()
    if factor := getattr(config, "logit_scale", None):
        logits = logits * factor
    if divisor := getattr(config, "logits_scaling", None):
        logits = logits / divisor
    if cap := getattr(config, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return possible(logits, model)


def possible(logits: Tensor, model: PreTrainedModel) -> Tensor:
    """Gives tokens that a model never generates (`suppress_tokens`) no part in the softmax.

    `convert` names the rows there that a vocabulary was filled up with.

    Args:
        logits: [..., vocabulary].
        model: with a generation config.
    """
    settings: Any = model.generation_config
    never = getattr(settings, "suppress_tokens", None)
    if not never:
        return logits
    return logits.index_fill(-1, torch.tensor(never, device=logits.device), float("-inf"))
