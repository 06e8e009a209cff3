"""The gradient of each sample of a batch by LoRA adapters, from one backward pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from coincide_pl.errors import ModelError

Keep = Callable[[int, Tensor], None]
"""What is done with the gradients [B, n] of all samples by the weight of a number."""


@dataclass(frozen=True)
class Adapter:
    """One of the two linear layers of a LoRA adapter.

    Attributes:
        module: without a bias.
        target: last name of the layer that it belongs to, such as `q_proj`.
        name: its path in the model.
    """

    module: nn.Linear
    target: str
    name: str


def adapters(model: nn.Module) -> list[Adapter]:
    """All parts of all LoRA adapters of a model, in order.

    Raises:
        ModelError: there are none, or some that are more than two linear layers.
    """
    found: list[Adapter] = []
    for name, layer in model.named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        for kind, parts in (("lora_A", layer.lora_A), ("lora_B", layer.lora_B)):
            for active in layer.active_adapters:
                part = dict(parts.items()).get(active)
                if not isinstance(part, nn.Linear) or part.bias is not None:
                    raise ModelError(f"{name}: gradients are of LoRA on linear layers alone")
                found.append(Adapter(part, name.rpartition(".")[2], f"{name}.{kind}.{active}"))
    if not found:
        raise ModelError("gradients are of LoRA adapters, and the model has none")
    return found


class _Linear(torch.autograd.Function):
    """A linear layer whose backward pass hands on what its weight's gradient is made of."""

    @staticmethod
    def forward(
        ctx: Any, given: Tensor, weight: Tensor, keep: Callable[[Tensor, Tensor], None]
    ) -> Tensor:
        ctx.save_for_backward(given, weight)
        ctx.keep = keep
        return F.linear(given, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, None, None]:
        given, weight = ctx.saved_tensors
        (gradient,) = gradients
        ctx.keep(given, gradient)
        return gradient @ weight if ctx.needs_input_grad[0] else None, None, None


@contextmanager
def per_sample(parts: Sequence[Adapter], keep: Keep) -> Iterator[None]:
    """While open, the backward pass hands over the gradients of each sample, and keeps none.

    A linear layer y_t = W x_t has for each sample the gradient Σ_t (∂L/∂y_t) x_tᵀ, summed over its
    own tokens; where the loss is a sum over samples, no sample has a part in another's.

    Args:
        parts: which weights.
        keep: is given the gradients by a weight, float32 [B, n], under the weight's number among
            `parts`, once in each backward pass; in what order, the model says.
    """

    def hand_on(number: int, given: Tensor, gradient: Tensor) -> None:
        if given.ndim != 3:
            raise ModelError(
                f"{parts[number].name}: is given tokens of all samples in one row "
                f"({list(given.shape)}), so that none of them can be told apart"
            )
        by_weight = torch.bmm(gradient.float().transpose(1, 2), given.float())
        keep(number, by_weight.flatten(1))

    def forward(number: int, weight: Tensor, given: Tensor) -> Tensor:
        with torch.autocast(given.device.type, enabled=False):
            out: Tensor = _Linear.apply(given.to(weight.dtype), weight, partial(hand_on, number))
        return out

    wanted = [part.module.weight.requires_grad for part in parts]
    try:
        for number, part in enumerate(parts):
            weight = part.module.weight.requires_grad_(True)  # else the pass would not reach it
            part.module.forward = partial(forward, number, weight)  # type: ignore[method-assign]
        yield
    finally:
        for part, before in zip(parts, wanted, strict=True):
            part.module.__dict__.pop("forward", None)
            part.module.weight.requires_grad_(before)
