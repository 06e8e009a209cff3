"""Run the beginning that several samples share once: the prompt, and the image in it.

A decoder sees no later token, so the states of a beginning that is the same do not depend on what
follows. Where ten questions are about one image, its tokens are nine tenths of the work.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import DynamicCache, PreTrainedModel

from coincide_pl.data.collation import Batch
from coincide_pl.models.images import TOKEN_TYPES, model_inputs, shared_images
from coincide_pl.models.reading import Reading, read


def run_until(model: PreTrainedModel, readings: Sequence[Reading], batch: Batch) -> list[Tensor]:
    """Run a model up to the deepest of what is read of its decoder.

    Args:
        model: an image-text-to-text model.
        readings: what to read, in any order: of decoder layers, or what the head is given.
        batch: what the model reads.

    Returns:
        In the order of `readings`: [B, T, H], or [B, T, T] of attention weights.
    """
    if shares(model, batch):
        return _run_shared(model, readings, batch)
    inputs = model_inputs(model, batch)
    with shared_images(model, batch):
        return read(model, readings, {**inputs, "use_cache": False})


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


def _run_shared(model: PreTrainedModel, readings: Sequence[Reading], batch: Batch) -> list[Tensor]:
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
        first = read(
            model,
            readings,
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
    second = read(
        model,
        readings,
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
    moved = len(lengths) > 1 and not bool((lengths == longest).all())
    joined = []
    for reading, beginning, rest in zip(readings, first, second, strict=True):
        start = beginning[prefix]
        if reading.at == "weights":  # nothing that follows is seen by a beginning
            start = F.pad(start, (0, rest.shape[2] - start.shape[2]))
        both = torch.cat([start, rest], 1)  # [B, P + S, H], or [B, P + S, P + S]
        if moved:
            both = both.gather(1, shift[..., None].expand(-1, -1, both.shape[2]))
            if reading.at == "weights":
                both = both.gather(2, shift[:, None].expand(-1, both.shape[1], -1))
        joined.append(both)
    return joined


def first_rows(prefix: Tensor, count: int) -> Tensor:
    """The first row of each beginning, int64 [U]."""
    rows = torch.arange(len(prefix), device=prefix.device)
    out = torch.full((count,), len(prefix), device=prefix.device)
    return out.scatter_reduce(0, prefix, rows, "amin")


def _no_image(batch: Batch) -> int:
    """A token for padding: the batch's first, which is no image token."""
    return int(batch.input_ids[0, 0])
