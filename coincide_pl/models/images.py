"""Encode each distinct image of a batch once, however many of its samples show it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from coincide_pl.data.collation import Batch

TOKEN_TYPES = ("mm_token_type_ids", "token_type_ids")
"""What models call the argument that is 1 at image tokens."""
PER_MARK = ("image_grid_thw",)
"""Image arguments that models also read where they place the tokens, one for each image mark."""


@contextmanager
def shared_images(model: PreTrainedModel, batch: Batch) -> Iterator[None]:
    """While open, image features made from the distinct images are handed out per occurrence.

    A model given `pixel_values` of the distinct images computes their features once; where an image
    stands at several marks of the batch, its features are repeated.

    Args:
        model: an image-text-to-text model of transformers; its `get_image_features` returns, as
            `pooler_output`, the features image by image, and for some families more of the same
            kind for each of several layers, as `deepstack_features`.
        batch: whose images may each stand at several marks.
    """
    index = batch.image_order
    if index == list(range(batch.num_images)):  # every image stands once: nothing to repeat
        yield
        return
    sizes = batch.image_tokens
    owner = model.model
    original = owner.get_image_features

    def repeated(features: Tensor | Sequence[Tensor]) -> Tensor | list[Tensor]:
        whole = isinstance(features, Tensor)
        if not isinstance(features, Tensor):
            features = torch.cat([part.flatten(0, -2) for part in features])
        parts = features.flatten(0, -2).split(sizes)
        chosen = [parts[image] for image in index]
        return torch.cat(chosen) if whole else chosen

    @functools.wraps(original)  # generation reads the signature
    def get_image_features(*args: Any, **kwargs: Any) -> Any:
        kwargs.update(zip(inspect.signature(original).parameters, args, strict=False))
        kwargs.update({name: batch.image_inputs[name] for name in PER_MARK if name in kwargs})
        output = original(**kwargs)
        output.pooler_output = repeated(output.pooler_output)
        if getattr(output, "deepstack_features", None) is not None:
            output.deepstack_features = [repeated(layer) for layer in output.deepstack_features]
        return output

    owner.get_image_features = get_image_features
    try:
        yield
    finally:
        del owner.get_image_features


def model_inputs(model: PreTrainedModel, batch: Batch) -> dict[str, Tensor]:
    """The arguments of a model's forward pass, from a `Batch`."""
    known = inspect.signature(model.forward).parameters
    types = [name for name in TOKEN_TYPES if name in known][:1]
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        **{name: batch.image_mask.long() for name in types},
        **{
            name: value[batch.image_index] if name in PER_MARK else value
            for name, value in batch.image_inputs.items()
            if name in known  # processors return more than their models take
        },
    }


def per_sample(features: Tensor, batch: Batch) -> Tensor:
    """A feature of each sample: the mean of its images', of norm 1; zeros where it has none.

    Args:
        features: [images, D] of the batch's distinct images, of norm 1.
        batch: whose samples show them.

    Returns:
        [B, D].
    """
    shown = features[batch.image_index]  # [occurrences, D]
    rows = torch.arange(len(batch.rows), device=features.device)
    owner = rows.repeat_interleave(batch.image_counts)
    return F.normalize((owner == rows[:, None]).to(shown.dtype) @ shown, dim=1)


def blank(model: PreTrainedModel, inputs: dict[str, Tensor]) -> Tensor:
    """A number that depends on everything which images go through, for a blank image."""
    features = model.model.get_image_features(**inputs, return_dict=True).pooler_output
    parts = [features] if isinstance(features, Tensor) else features
    return torch.stack([part.sum() for part in parts]).sum()
