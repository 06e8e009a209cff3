"""Find the parts of any image-text-to-text model: decoder layers, projections, towers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import nn
from transformers import PreTrainedModel

from coincide_pl.errors import ModelError

PARTS = {
    "vision_tower": ("vision_tower", "vision_model", "visual", "vision_encoder"),
    "projector": (
        *("multi_modal_projector", "connector", "merger", "aligner"),
        *("deepstack_merger_list", "embed_vision"),
    ),
    "language_model": ("language_model", "text_model"),
}
"""What the parts are called in the model classes of transformers, by our name for them."""
LAYER_PARTS = ("decoder_layers", "attention_output")
"""Further names in `parts`: the list of decoder layers, and a path within one of them."""

ATTENTION = ("self_attn", "self_attention", "attn", "attention")
OUTPUT_PROJECTION = ("o_proj", "out_proj", "dense", "c_proj", "wo")


def check_parts(parts: Mapping[str, str]) -> None:
    """Refuse names that nothing is known by.

    Raises:
        ModelError: naming the one.
    """
    for name in parts:
        if name not in (*PARTS, *LAYER_PARTS):
            known = ", ".join((*PARTS, *LAYER_PARTS))
            raise ModelError(f"parts: {name!r} is not one of {known}")


def modules(model: nn.Module, name: str, parts: Mapping[str, str] | None = None) -> list[nn.Module]:
    """The modules that make up one part of a model, none inside another.

    Args:
        model: an image-text-to-text model.
        name: `vision_tower`, `projector` or `language_model`, or the dotted path of any submodule.
        parts: paths of parts that have other names than usual.

    Raises:
        ModelError: the model has no such part; the message lists what it has.
    """
    path = (parts or {}).get(name)
    if path is None and name not in PARTS:
        path = name
    if path is not None:
        try:
            return [model.get_submodule(path)]
        except AttributeError:
            pass
    else:
        found: dict[str, nn.Module] = {}
        for at, module in model.named_modules():
            inside = any(at.startswith(f"{outer}.") for outer in found)
            if at.rpartition(".")[2] in PARTS[name] and not inside:
                found[at] = module
        if found:
            return list(found.values())
    inner = model.get_submodule("model") if hasattr(model, "model") else model
    raise ModelError(
        f"{type(model).__name__} has no part {path or name!r}: use one of {', '.join(PARTS)}, "
        f"named by hand with the option parts.{name if name in PARTS else 'vision_tower'}, or the "
        f"path of a submodule, such as {', '.join(path for path, _ in inner.named_children())}"
    )


def parameters(
    model: nn.Module, name: str, parts: Mapping[str, str] | None = None
) -> list[nn.Parameter]:
    """The parameters of a part; those of a projector inside the vision tower are not the tower's.

    Args:
        model: an image-text-to-text model.
        name: see `modules`.
        parts: see `modules`.
    """
    own = [p for module in modules(model, name, parts) for p in module.parameters()]
    if name != "vision_tower":
        return own
    try:
        projector = {id(p) for p in parameters(model, "projector", parts)}
    except ModelError:  # some models have none
        return own
    return [p for p in own if id(p) not in projector]


def decoder_layers(model: PreTrainedModel, path: str | None = None) -> nn.ModuleList:
    """The text decoder's layers, in order.

    Args:
        model: an image-text-to-text model.
        path: where they are, for a model in which they are not found.

    Raises:
        ModelError: no list of as many layers as the config tells was found.
    """
    name = type(model).__name__
    if path is not None:
        (layers,) = modules(model, path)
        if not isinstance(layers, nn.ModuleList):
            raise ModelError(f"parts.decoder_layers: {path!r} of {name} is no list of layers")
        return layers
    count = getattr(model.config.get_text_config(), "num_hidden_layers", None)
    decoder = model.get_decoder()
    for _, module in decoder.named_modules() if decoder is not None else ():
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return module
    lists = [at for at, module in model.named_modules() if isinstance(module, nn.ModuleList)]
    raise ModelError(
        f"no list of {count} decoder layers found in {name}: name it with the option "
        f"parts.decoder_layers, as a path; the model's lists are {', '.join(lists)}"
    )


def attention_outputs(
    model: PreTrainedModel, layers: Sequence[int], parts: Mapping[str, str] | None = None
) -> list[nn.Module]:
    """The attention blocks' output projections of some decoder layers.

    Args:
        model: an image-text-to-text model.
        layers: decoder layers, counted from 0.
        parts: `decoder_layers`, the path of their list, and `attention_output`, the projection's
            path within a layer, such as `self_attn.o_proj`, where these are not found by the usual
            names.

    Returns:
        One module per layer, in the order of `layers`.

    Raises:
        ModelError: a layer the model does not have, or a projection that is not found.
    """
    parts = parts or {}
    stack = decoder_layers(model, parts.get("decoder_layers"))
    if not layers or len(set(layers)) != len(layers):
        raise ModelError(f"layers: {list(layers)} must be different layers, and at least one")
    for layer in layers:
        if not 0 <= layer < len(stack):
            raise ModelError(
                f"layers: {layer} is not a layer of {type(model).__name__}, "
                f"which has {len(stack)} (0 to {len(stack) - 1})"
            )
    return [_projection(stack[layer], parts.get("attention_output")) for layer in layers]


def _projection(layer: nn.Module, path: str | None) -> nn.Module:
    names = ", ".join(name for name, _ in layer.named_modules() if name)
    if path is not None:
        try:
            return layer.get_submodule(path)
        except AttributeError:
            raise ModelError(
                f"parts.attention_output: a decoder layer has no {path!r}; it has {names}"
            ) from None
    for attention in ATTENTION:
        for name in OUTPUT_PROJECTION:
            block = getattr(layer, attention, None)
            if isinstance(block, nn.Module) and isinstance(getattr(block, name, None), nn.Module):
                return getattr(block, name)
    raise ModelError(
        f"no attention output projection found in {type(layer).__name__}: name it with the option "
        f"parts.attention_output, as a path within the layer, which has {names}"
    )
