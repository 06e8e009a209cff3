"""Run the beginning that several samples share once: the prompt, and the image in it.

A decoder sees no later token, so the states of a beginning that is the same do not depend on what
follows. Where ten questions are about one image, its tokens are nine tenths of the work.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from coincide_pl.data.collation import Batch
from coincide_pl.models.images import TOKEN_TYPES, model_inputs, shared_images


class _Reached(Exception):
    """All that was wanted has run."""


def run_until(
    model: PreTrainedModel, projections: Sequence[nn.Module], head: nn.Module | None, batch: Batch
) -> tuple[list[Tensor], Tensor | None]:
    """Run a model up to the deepest of some modules, or up to its head.

    Args:
        model: an image-text-to-text model.
        projections: modules of its decoder, in any order, each run once in a forward pass.
        head: the language-model head, before which to stop, where its input is wanted.
        batch: what the model reads.

    Returns:
        The output [B, T, H] of each module, and what the head would read, [B, T, H].
    """
    with torch.inference_mode():
        if not shares(model, batch):
            inputs = model_inputs(model, batch)
            with shared_images(model, batch):
                found = outputs_of(model, projections, head, {**inputs, "use_cache": False})
        else:
            found = _run_shared(model, projections, head, batch)
    outputs, states = found[: len(projections)], found[len(projections) :]
    return outputs, states[0] if states else None


def shares(model: PreTrainedModel, batch: Batch) -> bool:
    """Whether beginnings are shared, and a model of this kind can go on from one.

    Not those whose tokens have positions by image, whose images see their own future, or whose
    layers see a window only.
    """
    if batch.prefix is None:
        return False
    signature = inspect.signature(model.forward).parameters
    text = model.config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or ["full_attention"])
    return (
        "position_ids" in signature
        and not any(name in signature for name in TOKEN_TYPES)
        and kinds == {"full_attention"}
        and not getattr(text, "sliding_window", None)
    )


def _run_shared(
    model: PreTrainedModel, projections: Sequence[nn.Module], head: nn.Module | None, batch: Batch
) -> list[Tensor]:
    prefix, lengths = batch.prefix, batch.prefix_lengths  # [B], [U]
    assert prefix is not None
    assert lengths is not None
    device = batch.input_ids.device
    rows = first_rows(prefix, len(lengths))
    longest = int(lengths.max())
    # Beginnings end together, so that what follows them begins at one place.
    places = torch.arange(longest, device=device) - (longest - lengths)[:, None]  # [U, P]
    real = places >= 0
    begin = dataclasses.replace(
        batch,
        input_ids=batch.input_ids[rows].gather(1, places.clamp(min=0)),
        attention_mask=real.long(),
        image_mask=batch.image_mask[rows].gather(1, places.clamp(min=0)) & real,
        image_index=batch.image_index[rows],  # each row has one image
        image_order=[batch.image_order[row] for row in rows.tolist()],
    )
    begin.input_ids[~real] = _no_image(batch)
    cache = DynamicCache(config=model.config.get_text_config())
    with shared_images(model, begin):
        first = outputs_of(
            model,
            projections,
            head,
            {
                **model_inputs(model, begin),
                "position_ids": places.clamp(min=0),
                "past_key_values": cache,
                "use_cache": True,
            },
        )
    cache.batch_select_indices(prefix)
    own = lengths[prefix]  # [B]
    total = batch.attention_mask.sum(1)
    after = torch.arange(int((total - own).max()), device=device) + own[:, None]  # [B, S]
    there = after < total[:, None]
    last = batch.input_ids.shape[1] - 1
    ids = batch.input_ids.gather(1, after.clamp(max=last))
    second = outputs_of(
        model,
        projections,
        head,
        {
            "input_ids": ids.masked_fill(~there, _no_image(batch)),
            "attention_mask": torch.cat([real[prefix], there], 1).long(),
            "position_ids": after.clamp(max=last),
            "past_key_values": cache,
            "use_cache": True,
        },
    )
    shift = (longest - own)[:, None] + torch.arange(last + 1, device=device)  # [B, T]
    shift = shift.clamp(max=longest + after.shape[1] - 1)
    joined = []
    for head_part, tail_part in zip(first, second, strict=True):
        both = torch.cat([head_part[prefix], tail_part], 1)  # [B, P + S, H]
        if len(lengths) == 1 or bool((lengths == longest).all()):
            joined.append(both)
        else:
            joined.append(both.gather(1, shift[..., None].expand(-1, -1, both.shape[2])))
    return joined


def first_rows(prefix: Tensor, count: int) -> Tensor:
    """The first row of each beginning, int64 [U]."""
    rows = torch.arange(len(prefix), device=prefix.device)
    out = torch.full((count,), len(prefix), device=prefix.device)
    return out.scatter_reduce(0, prefix, rows, "amin")


def _no_image(batch: Batch) -> int:
    """A token for padding: the batch's first, which is no image token."""
    return int(batch.input_ids[0, 0])


def outputs_of(
    model: nn.Module,
    projections: Sequence[nn.Module],
    head: nn.Module | None,
    inputs: dict[str, Any],
) -> list[Tensor]:
    """Run a model until all that is wanted has run.

    Args:
        model: any module that holds the others.
        projections: modules that each run once in a forward pass.
        head: the language-model head, before which to stop, where its input is wanted.
        inputs: the model's arguments.

    Returns:
        The output of each projection, and last what the head would read, where there is one.
    """
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs[module] = output
        if head is None and len(outputs) == len(projections):
            raise _Reached

    def stop(module: nn.Module, read: tuple[Tensor, ...]) -> None:
        outputs[module] = read[0]
        raise _Reached

    hooks = [module.register_forward_hook(keep) for module in projections]
    if head is not None:
        hooks.append(head.register_forward_pre_hook(stop))
    try:
        model(**inputs)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return [outputs[module] for module in (*projections, *([head] if head is not None else []))]
