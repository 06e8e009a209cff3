"""Encode each distinct image of a batch once, however many of its samples show it."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import Tensor
from transformers import PreTrainedModel


@contextmanager
def shared_images(model: PreTrainedModel, image_index: Tensor, num_images: int) -> Iterator[None]:
    """While open, image features made from the distinct images are handed out per occurrence.

    A model given `pixel_values` of the distinct images computes their features once; where
    `image_index` repeats an image, its features are repeated.

    Args:
        model: an image-text-to-text model of transformers; its `get_image_features` returns, as
            `pooler_output`, the features image by image.
        image_index: int64 [occurrences], the image that stands at each image mark of the batch.
        num_images: how many distinct images the batch has.
    """
    if image_index.numel() == num_images:  # every image stands once: nothing to repeat
        yield
        return
    owner = model.model
    original = owner.get_image_features

    @functools.wraps(original)  # generation reads the signature
    def repeated(*args: Any, **kwargs: Any) -> Any:
        output = original(*args, **kwargs)
        features = output.pooler_output
        if isinstance(features, Tensor):
            output.pooler_output = features[image_index.to(features.device)]
        else:
            output.pooler_output = type(features)([features[i] for i in image_index.tolist()])
        return output

    owner.get_image_features = repeated
    try:
        yield
    finally:
        del owner.get_image_features


def model_inputs(batch: Any) -> dict[str, Tensor]:
    """The arguments of a forward pass, from a `Batch`."""
    return {
        "input_ids": batch.input_ids,
        "attention_mask": batch.attention_mask,
        **batch.image_inputs,
    }
