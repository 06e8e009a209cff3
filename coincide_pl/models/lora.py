"""Low-rank adapters on the language model's linear layers, and folding them in again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import cast

from peft import LoraConfig
from peft.tuners.lora import LoraLayer
from torch import nn
from transformers import PreTrainedModel

from coincide_pl.errors import ModelError
from coincide_pl.models.parts import meant, modules


@dataclass
class LoRA:
    """Low-rank adaptation (Hu et al., 2021, arXiv 2106.09685) of the language model.

    Attributes:
        rank: width r of the adapters (128 in LLaVA-1.5's recipe).
        alpha: numerator of the update's scale, alpha / rank.
        dropout: share of the adapters' inputs that is set to 0 in training.
        target_modules: last names of the linear layers that get one, such as `q_proj`; all of the
            language model's by default.
    """

    rank: int = 128
    alpha: float = 256
    dropout: float = 0.05
    target_modules: list[str] = field(default_factory=list)


def add_lora(model: PreTrainedModel, lora: LoRA, parts: Mapping[str, str] | None = None) -> None:
    """Freeze the language model and give its linear layers adapters, in place.

    Args:
        model: an image-text-to-text model.
        lora: the adapters' sizes.
        parts: paths of parts, see `parts.modules`.

    Raises:
        ModelError: a size out of range, or a name that no linear layer has.
    """
    if lora.rank < 1:
        raise ModelError(f"lora.rank: {lora.rank} must be at least 1")
    if not 0 <= lora.dropout < 1:
        raise ModelError(f"lora.dropout: {lora.dropout} is outside [0, 1)")
    text, *others = modules(model, "language_model", parts)
    names = {module: name for name, module in model.named_modules()}
    if others:
        found = ", ".join(names[module] for module in (text, *others))
        raise ModelError(
            f"lora: {type(model).__name__} has several language models; name one of {found} with "
            "the option parts.language_model"
        )
    linear: dict[str, list[str]] = {}  # full names by last name
    for module in text.modules():
        if isinstance(module, nn.Linear):
            linear.setdefault(names[module].rpartition(".")[2], []).append(names[module])
    for name in lora.target_modules:
        if name not in linear:
            raise ModelError(
                f"lora.target_modules: no linear layer of the language model is called {name!r}"
                f"{meant(name, linear)}; there are {', '.join(linear)}"
            )
    targets = [full for name in lora.target_modules or linear for full in linear[name]]
    trained = [
        p for n, p in model.named_parameters() if p.requires_grad and not n.startswith(names[text])
    ]
    model.add_adapter(
        LoraConfig(
            r=lora.rank,
            lora_alpha=cast(int, lora.alpha),  # any number will do
            lora_dropout=lora.dropout,
            target_modules=targets,
        )
    )
    head = model.get_output_embeddings()
    frozen = {id(p) for p in head.parameters()} if head is not None else set()
    for parameter in trained:  # what is not the language model is trained as before
        parameter.requires_grad_(id(parameter) not in frozen)


def merge_lora(model: PreTrainedModel) -> None:
    """Add each adapter's update to its layer's weight and take the adapter away, in place."""
    adapted = [(n, m) for n, m in model.named_modules() if isinstance(m, LoraLayer)]
    for name, layer in adapted:
        layer.merge(safe_merge=True)
        parent, _, last = name.rpartition(".")
        setattr(model.get_submodule(parent), last, layer.get_base_layer())
    if adapted:
        del model.peft_config
        model._hf_peft_config_loaded = False
