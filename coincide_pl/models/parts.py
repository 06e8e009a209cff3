"""Find the parts of any image-text-to-text model: decoder layers, projections, towers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from difflib import get_close_matches

from torch import nn
from transformers import PreTrainedModel

from coincide_pl.errors import ModelError
from coincide_pl.signals.forward import OutputKind

PARTS = {
    "vision_tower": ("vision_tower", "vision_model", "visual", "vision_encoder"),
    "projector": (
        *("multi_modal_projector", "connector", "merger", "aligner"),
        *("deepstack_merger_list", "embed_vision"),
    ),
    "language_model": ("language_model", "text_model"),
}
"""What the parts are called in the model classes of transformers, by our name for them."""
LAYER_PARTS = (
    *("decoder_layers", "attention_output", "mlp_output", "mlp_activation", "attention_weights"),
)
"""Further names in `parts`: the list of decoder layers, and paths within one of them."""

ATTENTION = ("self_attn", "self_attention", "attn", "attention")
MLP = ("mlp", "feed_forward", "ffn", "block_sparse_moe")
DOWN_PROJECTION = ("down_proj", "fc2", "dense_4h_to_h", "c_proj", "wo", "w2", "fc_out")
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


def meant(name: str, known: Collection[str]) -> str:
    """What a mistaken name may have stood for, as the end of an error message; or nothing."""
    near = get_close_matches(name, known, 3, 0.6)
    return f" (did you mean {' or '.join(near)}?)" if near else ""


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
    paths = [at for at, _ in model.named_modules() if at]
    near = meant(path or name, [*PARTS, *paths])
    raise ModelError(
        f"{type(model).__name__} has no part {path or name!r}{near}: use one of "
        f"{', '.join(PARTS)}, "
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


def layer_part(
    model: PreTrainedModel, kind: OutputKind, layer: int, parts: Mapping[str, str] | None = None
) -> nn.Module:
    """The module of a decoder layer that something is read of.

    Args:
        model: an image-text-to-text model.
        kind: what is read: the attention block's output projection, the MLP, its down projection
            for what that is given, the whole layer, or the attention block for its weights.
        layer: counted from 0, or from the last, -1.
        parts: `decoder_layers`, the path of their list, and by kind the module's path within a
            layer, such as `self_attn.o_proj`, where these are not found by the usual names.

    Raises:
        ModelError: a layer the model does not have, or a module that is not found.
    """
    parts = parts or {}
    stack = decoder_layers(model, parts.get("decoder_layers"))
    if not -len(stack) <= layer < len(stack):
        raise ModelError(
            f"layers: {layer} is not a layer of {type(model).__name__}, "
            f"which has {len(stack)} (0 to {len(stack) - 1})"
        )
    block = stack[layer]
    if kind == "block_output":
        return block
    names = ", ".join(name for name, _ in block.named_modules() if name)
    if kind in parts:
        try:
            return block.get_submodule(parts[kind])
        except AttributeError:
            raise ModelError(
                f"parts.{kind}: a decoder layer has no {parts[kind]!r}; it has {names}"
            ) from None
    found = _children([block], MLP if kind.startswith("mlp") else ATTENTION)
    if kind == "attention_output":
        found = _children(found, OUTPUT_PROJECTION)
    if kind == "mlp_activation":
        found = _children(found, DOWN_PROJECTION)
    if not found:
        raise ModelError(
            f"no {kind.replace('_', ' ')} found in {type(block).__name__}: name its module with "
            f"the option parts.{kind}, as a path within the layer, which has {names}"
        )
    return found[0]


def _children(modules: Sequence[nn.Module], names: Sequence[str]) -> list[nn.Module]:
    """The submodules that have one of some names."""
    found = [getattr(module, name, None) for module in modules for name in names]
    return [module for module in found if isinstance(module, nn.Module)]
