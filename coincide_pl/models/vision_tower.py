"""Load a vision tower and its image processor, as parts of a LLaVA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModel,
    AutoModelForImageTextToText,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from coincide_pl.errors import ModelError
from coincide_pl.models.loading import DType, check_directory, first_line, load_whole, quietly
from coincide_pl.models.parts import modules
from coincide_pl.models.processors import load_processor

STEPS = (
    *("do_resize", "size", "resample", "do_center_crop", "crop_size", "do_rescale"),
    *("rescale_factor", "do_normalize", "image_mean", "image_std", "do_convert_rgb"),
)
"""What image processors are set by."""
SHAPES = ((40, 30), (30, 40))
"""Width and height of images that an image processor is tried on."""


@dataclass(frozen=True)
class VisionTower:
    """A vision transformer and its image processor.

    Attributes:
        model: of transformers.
        image_processor: makes its pixels.
        patch_size: side of a patch in pixels.
        patches: how many an image has.
        others: how many rows of features there are beside those of patches, such as a class token.
    """

    model: PreTrainedModel
    image_processor: Any
    patch_size: int
    patches: int
    others: int


def load_vision_tower(
    name: str, layer: int, pad_images: bool = False, dtype: DType = "float32"
) -> VisionTower:
    """A vision tower, tried on an image.

    Args:
        name: directory or hub name of a vision model, of a CLIP or SigLIP, or of an
            image-text-to-text model that has a tower.
        layer: whose features are wanted.
        pad_images: pad images to squares first.
        dtype: in which the weights are held.

    Raises:
        ModelError: no vision transformer, no image processor, or they do not fit each other.
    """
    check_directory(name, "config.json")
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds
        raise ModelError(f"{name}: no usable vision tower: {first_line(error)}") from error
    patch = getattr(getattr(config, "vision_config", config), "patch_size", None)
    if not isinstance(patch, int):
        raise ModelError(f"{name}: no usable vision tower: its config.json names no patch_size")
    model, processor = _parts(name, config, dtype)
    if pad_images:
        steps: dict[str, Any] = {step: getattr(processor, step, None) for step in STEPS}
        given = {step: value for step, value in steps.items() if value is not None}
        processor = LlavaImageProcessorPil(**given, do_pad=True)
    try:
        blank = [Image.fromarray(np.zeros((h, w, 3), np.uint8)) for w, h in SHAPES]
        shapes = [processor(image, return_tensors="pt")["pixel_values"] for image in blank]
        if len({pixels.shape for pixels in shapes}) > 1 or shapes[0].ndim != 4:
            raise ModelError(f"{name}: its image processor makes images of different sizes")
        with torch.no_grad():
            states = model(pixel_values=shapes[0].to(model.dtype), output_hidden_states=True)
        rows = states.hidden_states[layer].shape[1]
    except IndexError as error:
        raise ModelError(
            f"vision_feature_layer={layer}: {name} has {len(states.hidden_states) - 1} layers"
        ) from error
    except (TypeError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name}: no usable vision tower: {first_line(error)}") from error
    height, width = shapes[0].shape[-2:]
    patches = (height // patch) * (width // patch)
    if rows < patches:
        raise ModelError(f"{name}: gives {rows} features for an image of {patches} patches")
    return VisionTower(model, processor, patch, patches, rows - patches)


def _parts(name: str, config: Any, dtype: DType) -> tuple[Any, Any]:
    """The model and the image processor of a checkpoint."""
    kind = getattr(torch, dtype)
    if type(config) in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING:
        whole = load_whole(
            AutoModelForImageTextToText, name, "model with a vision tower", dtype=kind
        )
        tower: Any = modules(whole, "vision_tower")[0]
        return tower.eval(), load_processor(name).image_processor
    own = getattr(config, "vision_config", config)
    with quietly():
        tower = load_whole(AutoModel, name, "usable vision tower", config=own, dtype=kind)
    try:
        with quietly():
            processor = AutoImageProcessor.from_pretrained(
                name, use_fast=False, trust_remote_code=False
            )
    except Exception as error:  # transformers raises many kinds
        raise ModelError(
            f"{name}: no usable image processor beside the vision tower: {first_line(error)}"
        ) from error
    return tower.eval(), processor
