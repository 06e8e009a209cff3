"""Read what a model computes inside while it runs, and stop it when all that is wanted has run."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

WEIGHTS = "coincide_weights"
"""Name, in transformers' table of attention functions, of the one that also gives its weights."""
Keep = Callable[[Tensor], None]


class _Reached(Exception):
    """All that was wanted has run."""


@dataclass(frozen=True)
class Reading:
    """A tensor to read: what a module is given, what it puts out, or its attention weights.

    Attributes:
        module: runs once in a forward pass; an attention block for its weights.
        at: `weights` are averaged over the heads, float32 [B, T, T].
    """

    module: nn.Module
    at: Literal["input", "output", "weights"] = "output"

    @contextmanager
    def kept(self, keep: Keep) -> Iterator[None]:
        """While open, hands the tensor to `keep` as soon as it is there."""
        if self.at == "weights":
            with _weights_kept(self.module, keep):
                yield
            return
        if self.at == "input":
            hook = self.module.register_forward_pre_hook(lambda _, given: keep(given[0]))
        else:
            hook = self.module.register_forward_hook(lambda _, __, given: keep(_first(given)))
        try:
            yield
        finally:
            hook.remove()


def read(model: nn.Module, readings: Sequence[Reading], inputs: dict[str, Any]) -> list[Tensor]:
    """Run a model until all that is wanted of it has run.

    Args:
        model: any module that holds the others.
        readings: what is wanted, in any order.
        inputs: the model's arguments.

    Returns:
        The tensors, in the order of `readings`.
    """
    found: dict[Reading, Tensor] = {}
    wanted = len(set(readings))  # one may be read for several

    def keeper(reading: Reading) -> Keep:
        def keep(tensor: Tensor) -> None:
            found[reading] = tensor
            if len(found) == wanted:
                raise _Reached

        return keep

    with ExitStack() as hooks:
        for reading in readings:
            hooks.enter_context(reading.kept(keeper(reading)))
        with suppress(_Reached):
            model(**inputs)
    return [found[reading] for reading in readings]


def _first(output: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a module puts out; some add to it what they have no other way to hand on."""
    return output[0] if isinstance(output, tuple) else output


_keepers: dict[nn.Module, tuple[str, Keep]] = {}
"""By attention block: its own kind of attention, and who wants its weights."""


@contextmanager
def _weights_kept(attention: Any, keep: Keep) -> Iterator[None]:
    """While open, hands over an attention block's weights; what it puts out stays as it is."""
    config = attention.config
    kind = config._attn_implementation
    if kind == "eager":
        hook = attention.register_forward_hook(lambda _, __, out: keep(out[1].float().mean(1)))
        try:
            yield
        finally:
            hook.remove()
        return
    attention.config = copy.copy(config)
    attention.config._attn_implementation = WEIGHTS
    _keepers[attention] = kind, keep
    try:
        yield
    finally:
        attention.config = config
        del _keepers[attention]


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attention of the block's own kind, and its weights beside it, one sample at a time.

    Args:
        module: the attention block.
        query: [B, heads, Q, d].
        key: [B, key heads, K, d].
        value: [B, key heads, K, d].
        attention_mask: bool [B, 1, Q, K], true where a key is seen, or what is added to the scores;
            [B, K] where padding alone is masked; None where nothing but the future is.
        options: what transformers gives attention functions, such as `scaling`.
    """
    kind, keep = _keepers[module]
    output, _ = AttentionInterface()[kind](module, query, key, value, attention_mask, **options)
    seen = _seen(attention_mask, query, key)  # [B or 1, 1, Q, K]
    repeats = query.shape[1] // key.shape[1]
    scaling = options.get("scaling") or query.shape[-1] ** -0.5
    cap = options.get("softcap")
    rows = []
    for row, (q, k) in enumerate(zip(query, key.repeat_interleave(repeats, 1), strict=True)):
        scores = (q @ k.transpose(1, 2)).float() * scaling  # [heads, Q, K]
        scores = torch.tanh(scores / cap) * cap if cap else scores
        rows.append((scores + seen[row % len(seen)]).softmax(-1).mean(0))
    keep(torch.stack(rows))
    return output, None


def _seen(mask: Tensor | None, query: Tensor, key: Tensor) -> Tensor:
    """What is added to the scores: 0 where a key is seen, the least number where it is not."""
    least = torch.finfo(torch.float32).min
    if mask is not None and mask.ndim == 4 and mask.is_floating_point():
        return mask[..., : key.shape[2]].float()
    if mask is None or mask.ndim == 2:
        last = torch.arange(query.shape[2], device=key.device) + key.shape[2] - query.shape[2]
        seen = (torch.arange(key.shape[2], device=key.device) <= last[:, None])[None, None]
        seen = seen & mask[:, None, None].bool() if mask is not None else seen
    else:
        seen = mask[..., : key.shape[2]]
    return torch.zeros_like(seen, dtype=torch.float32).masked_fill(~seen, least)


AttentionInterface.register(WEIGHTS, _attend)
