"""Load a checkpoint's processor, with the same pixels on every machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

from transformers import AutoConfig, AutoProcessor, ProcessorMixin

from coincide_pl.errors import ModelError
from coincide_pl.models.loading import check_directory, first_line, quietly


def load_processor(pretrained: str) -> ProcessorMixin:
    """The processor (tokenizer, image processor, chat template) of a checkpoint.

    Images go through Pillow, with torchvision installed or not, so pixels are the same everywhere.
    A video processor, which needs torchvision, is left out.

    Args:
        pretrained: a directory written by `save_pretrained`, or a name on the Hugging Face hub.

    Raises:
        ModelError: there is none, or it has no image processor and tokenizer.
    """
    check_directory(pretrained, "processor_config.json", "preprocessor_config.json")
    try:
        with quietly(), without_video():
            processor = AutoProcessor.from_pretrained(
                pretrained, use_fast=False, trust_remote_code=False
            )
    except Exception as error:
        raise ModelError(f"{pretrained}: no usable processor: {first_line(error)}") from error
    if not hasattr(processor, "image_processor") or not hasattr(processor, "tokenizer"):
        raise ModelError(f"{pretrained}: its processor does not take images and text")
    complete(processor, pretrained)
    return images_only(processor)


def complete(processor: ProcessorMixin, pretrained: str) -> None:
    """Gives a processor the sizes that older checkpoints have in the model's config alone.

    Args:
        processor: of the checkpoint.
        pretrained: the checkpoint.

    Raises:
        ModelError: the processor marks images by another token than the model.
    """
    try:
        config = AutoConfig.from_pretrained(pretrained, trust_remote_code=False)
    except Exception:  # that a model can't be loaded is told when it is loaded
        return
    sizes = vars(processor)
    if sizes.get("patch_size", 0) is None:
        vision = getattr(config, "vision_config", None)
        sizes["patch_size"] = getattr(vision, "patch_size", None)
        if sizes["patch_size"] is None:
            raise ModelError(
                f"{pretrained}: neither its processor nor its config.json names a patch_size"
            )
        if sizes.get("vision_feature_select_strategy", "") is None:
            strategy = getattr(config, "vision_feature_select_strategy", "default")
            sizes["vision_feature_select_strategy"] = strategy
        # CLIP's class token, which older processors left the model to count
        if vision is not None and vision.model_type == "clip_vision_model":
            sizes["num_additional_image_tokens"] = 1
    theirs = getattr(config, "image_token_id", None) or getattr(config, "image_token_index", None)
    ours = image_token_id(processor)
    if theirs is not None and ours is not None and theirs != ours:
        raise ModelError(
            f"{pretrained}: its processor puts token {ours} where an image stands, its model looks "
            f"for token {theirs} (image_token_index or image_token_id in config.json)"
        )


def image_token_id(processor: ProcessorMixin) -> int | None:
    """The token whose place image features take, if the processor names one."""
    own = getattr(processor.tokenizer, "image_token_id", None)
    if own is None and isinstance(name := getattr(processor, "image_token", None), str):
        own = processor.tokenizer.convert_tokens_to_ids(name)
    return own


def images_only(processor: ProcessorMixin) -> ProcessorMixin:
    """Make a processor that was built without a video processor one that never asks for it."""
    if "video_processor" in type(processor).get_attributes():
        kind: Any = type(processor)  # which mypy takes for not hashable
        processor.__class__ = _class_without_video(kind)
    return processor


@cache
def _class_without_video(kind: Any) -> type[ProcessorMixin]:
    names = [name for name in kind.get_attributes() if name != "video_processor"]

    def rebuild(self: ProcessorMixin) -> tuple[object, ...]:  # spawned workers lack this class
        return _rebuilt, (kind, dict(self.__dict__))

    own = {"get_attributes": classmethod(lambda _: names), "__reduce__": rebuild}
    return type(kind.__name__, (kind,), own)


def _rebuilt(kind: Any, state: dict[str, object]) -> ProcessorMixin:
    made = _class_without_video(kind)
    processor = made.__new__(made)
    processor.__dict__.update(state)
    return processor


@contextmanager
def without_video() -> Iterator[None]:
    """While open, processors are built of the parts that are not for videos."""
    attributes = ProcessorMixin.__dict__["get_attributes"]
    arguments = ProcessorMixin.__dict__["_get_arguments_from_pretrained"]

    def get_attributes(kind: type[ProcessorMixin]) -> list[str]:
        return [name for name in attributes.__func__(kind) if name != "video_processor"]

    def get_arguments(kind: type[ProcessorMixin], *args: object, **kwargs: object) -> list[object]:
        found = iter(arguments.__func__(kind, *args, **kwargs))
        names = attributes.__func__(kind)
        return [None if name == "video_processor" else next(found) for name in names]

    kind: Any = ProcessorMixin
    kind.get_attributes = classmethod(get_attributes)
    kind._get_arguments_from_pretrained = classmethod(get_arguments)
    try:
        yield
    finally:
        kind.get_attributes = attributes
        kind._get_arguments_from_pretrained = arguments
