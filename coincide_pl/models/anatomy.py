"""Find the parts of any image-text-to-text model: decoder layers, projections, towers."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from transformers import PreTrainedModel

from coincide_pl.errors import ModelError

PARTS = {
    "vision_tower": ("vision_tower", "vision_model", "visual", "vision_encoder"),
    "projector": ("multi_modal_projector", "connector", "merger", "aligner"),
    "language_model": ("language_model", "text_model"),
}
"""What the parts are called in the model classes of transformers, by our name for them."""

ATTENTION = ("self_attn", "self_attention", "attn", "attention")
OUTPUT_PROJECTION = ("o_proj", "out_proj", "dense", "c_proj", "wo")


def part(model: nn.Module, name: str) -> nn.Module:
    """One part of a model.

    Args:
        model: an image-text-to-text model.
        name: `vision_tower`, `projector` or `language_model`, or the dotted path of any submodule.

    Raises:
        ModelError: the model has no such part; the message lists what it has.
    """
    wanted = PARTS.get(name, (name,))
    for path, module in model.named_modules():
        if path and (path in wanted or (name in PARTS and path.rpartition(".")[2] in wanted)):
            return module
    inner = model.get_submodule("model") if hasattr(model, "model") else model
    raise ModelError(
        f"{type(model).__name__} has no part {name!r}: use one of {', '.join(PARTS)}, or the path "
        f"of a submodule, such as {', '.join(path for path, _ in inner.named_children())}"
    )


def decoder_layers(model: PreTrainedModel) -> nn.ModuleList:
    """The text decoder's layers, in order.

    Raises:
        ModelError: no list of as many layers as the config tells was found.
    """
    count = model.config.get_text_config().num_hidden_layers
    decoder = model.get_decoder()
    for _, module in decoder.named_modules():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    raise ModelError(f"no list of {count} decoder layers found in {type(model).__name__}")


def attention_outputs(
    model: PreTrainedModel, layers: Sequence[int], projection: str | None = None
) -> list[nn.Module]:
    """The attention blocks' output projections of some decoder layers.

    Args:
        model: an image-text-to-text model.
        layers: decoder layers, counted from 0.
        projection: the projection's path within a layer, such as `self_attn.o_proj`, for models in
            which it is not found by its usual names.

    Returns:
        One module per layer, in the order of `layers`.

    Raises:
        ModelError: a layer the model does not have, or a projection that is not found.
    """
    stack = decoder_layers(model)
    if not layers or len(set(layers)) != len(layers):
        raise ModelError(f"layers: {list(layers)} must be different layers, and at least one")
    for layer in layers:
        if not 0 <= layer < len(stack):
            raise ModelError(
                f"layers: {layer} is not a layer of {type(model).__name__}, "
                f"which has {len(stack)} (0 to {len(stack) - 1})"
            )
    return [_projection(stack[layer], projection) for layer in layers]


def _projection(layer: nn.Module, path: str | None) -> nn.Module:
    if path is not None:
        try:
            return layer.get_submodule(path)
        except AttributeError:
            names = ", ".join(name for name, _ in layer.named_modules() if name)
            raise ModelError(
                f"attention_output: a decoder layer has no {path!r}; it has {names}"
            ) from None
    for attention in ATTENTION:
        for name in OUTPUT_PROJECTION:
            block = getattr(layer, attention, None)
            if isinstance(block, nn.Module) and isinstance(getattr(block, name, None), nn.Module):
                return getattr(block, name)
    names = ", ".join(name for name, _ in layer.named_modules() if name)
    raise ModelError(
        f"no attention output projection found in {type(layer).__name__}: name it with the option "
        f"attention_output, as a path within the layer, which has {names}"
    )
