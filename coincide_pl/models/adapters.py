"""Adapters in PEFT's own format: written beside a model or alone, and folded into their base."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import cast

from peft import LoraConfig, PeftConfig, PeftModel
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from coincide_pl.errors import ModelError
from coincide_pl.models.loading import first_line, load_model, quietly

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
"""PEFT's names of its files."""
PREFIX = "base_model.model."
"""What PEFT puts before a parameter's name in the base model."""
NAME = "default"
"""The adapters' name among those that a model may have; it is in no file."""


class Adapters:
    """What a LoRA finetuning has learned, for `PeftModel.from_pretrained` on the base model.

    Beside the adapters these are the parts that were trained whole, such as the projector: PEFT's
    `modules_to_save`.
    """

    def __init__(
        self, model: PreTrainedModel, base: str, state: Mapping[str, Tensor] | None = None
    ) -> None:
        """Notes the parameters; they may be folded into the model afterwards.

        Args:
            model: the model with its adapters.
            base: checkpoint that training started from, a directory or a name on the hub.
            state: the trained parameters by their names in the model, where they lie in pieces.
        """
        trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        own: Mapping[str, Tensor] = trained if state is None else state
        self.tensors = {
            PREFIX + name.replace(f".{NAME}.", "."): own[name].detach() for name in trained
        }
        config = cast("LoraConfig", copy.copy(vars(model)["peft_config"][NAME]))
        config.base_model_name_or_path = str(Path(base).absolute()) if Path(base).is_dir() else base
        config.target_modules = sorted(config.target_modules or ())
        config.modules_to_save = [*whole_modules(model)]
        config.auto_mapping = {
            "base_model_class": type(model).__name__,
            "parent_library": type(model).__module__,
        }
        config.inference_mode = True
        self.config = config

    def save_pretrained(self, directory: str | Path) -> None:
        """Writes PEFT's two files into a directory that is there."""
        self.config.save_pretrained(str(directory))
        tensors = {name: tensor.cpu().contiguous() for name, tensor in self.tensors.items()}
        save_file(tensors, str(Path(directory) / WEIGHTS), {"format": "pt"})


def whole_modules(model: nn.Module, path: str = "") -> Iterator[str]:
    """Paths of the outermost modules all of whose parameters are trained as they are."""
    for name, module in model.named_children():
        at = f"{path}.{name}".lstrip(".")
        trained = [p.requires_grad and "lora_" not in n for n, p in module.named_parameters()]
        if trained and all(trained) and not isinstance(module, nn.ModuleList | nn.ModuleDict):
            yield at
        elif any(trained):
            yield from whole_modules(module, at)


def folded(directory: str | Path) -> tuple[PreTrainedModel, str]:
    """The base model of some adapters, with the adapters folded in.

    Args:
        directory: with PEFT's `adapter_config.json` and `adapter_model.safetensors`.

    Returns:
        The model, and the checkpoint that the adapters name as their base.

    Raises:
        ModelError: the adapters, or their base, can't be read.
    """
    if not (Path(directory) / WEIGHTS).is_file():
        raise ModelError(f"{directory}: adapters without {WEIGHTS}; save them as safetensors")
    try:
        base = PeftConfig.from_pretrained(str(directory)).base_model_name_or_path
    except Exception as error:  # a JSON file of anybody's
        raise ModelError(f"{directory}: {CONFIG}: {first_line(error)}") from error
    if not base:
        raise ModelError(f"{directory}: {CONFIG} does not say base_model_name_or_path; write it in")
    try:
        model = load_model(str(base))
    except ModelError as error:
        where = f"{directory}: base_model_name_or_path in {CONFIG}"
        raise ModelError(f"{where}: {error}") from error
    try:
        with quietly():
            whole = PeftModel.from_pretrained(model, str(directory))
        merged: PreTrainedModel = whole.merge_and_unload(safe_merge=True)
    except Exception as error:  # PEFT raises many kinds
        raise ModelError(f"{directory}: no adapters for {base}: {first_line(error)}") from error
    return merged, str(base)
