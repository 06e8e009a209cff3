"""Load a checkpoint's processor, with the same pixels on every machine."""

from __future__ import annotations

import logging

from transformers import AutoProcessor, ProcessorMixin

from coincide_pl.errors import ModelError
from coincide_pl.models.loading import check_directory, first_line


def load_processor(pretrained: str) -> ProcessorMixin:
    """The processor (tokenizer, image processor, chat template) of a checkpoint.

    Images go through Pillow, with torchvision installed or not, so pixels are the same everywhere.

    Args:
        pretrained: a directory written by `save_pretrained`, or a name on the Hugging Face hub.

    Raises:
        ModelError: there is none, or it has no image processor and tokenizer.
    """
    check_directory(pretrained, "processor_config.json", "preprocessor_config.json")
    logger = logging.getLogger("transformers")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns that torchvision is missing, which is not wanted here
    try:
        processor = AutoProcessor.from_pretrained(pretrained, use_fast=False)
    except Exception as error:
        raise ModelError(f"{pretrained}: no usable processor: {first_line(error)}") from error
    finally:
        logger.setLevel(level)
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(f"{pretrained}: its processor does not take images and text")
    return processor
