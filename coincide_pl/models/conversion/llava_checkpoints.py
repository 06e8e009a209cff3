"""What the original LLaVA and TinyLLaVA checkpoints hold: configs, weights, prompts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import LlamaConfig, PhiConfig, PretrainedConfig, StableLmConfig

from coincide_pl.errors import ModelError

Json = dict[str, Any]
"""A JSON object, such as a checkpoint's config."""

SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)
"""Of Vicuna's prompt, version 1, which LLaVA v1 and TinyLLaVA use."""

CHAT_TEMPLATE = """\
{%- set ns = namespace(system='SYSTEM') -%}
{%- for message in messages -%}
{%- set part = namespace(text='', images='') -%}
{%- if message.content is string -%}{%- set part.text = message.content -%}{%- else -%}
{%- for one in message.content -%}
{%- if one.type == 'image' -%}{%- set part.images = part.images + '<image>AFTER\\n' -%}
{%- else -%}{%- set part.text = part.text + one.text -%}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- if part.images -%}
{%- set part.text = part.text | trim -%}
{%- if not part.text -%}{%- set part.images = part.images[:-1] -%}{%- endif -%}
{%- endif -%}
{%- if message.role == 'system' -%}{%- set ns.system = part.text -%}{%- else -%}
{%- if ns.system is not none -%}{{ ns.system + ' ' }}{%- set ns.system = none -%}{%- endif -%}
{{ 'USER:' if message.role == 'user' else 'ASSISTANT:' }}
{%- if part.images or part.text -%}
{{ ' ' + part.images + part.text }}
{{- ' ' if message.role == 'user' else 'END' -}}
{%- endif -%}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""
"""Prompts of LLaVA v1 and TinyLLaVA: images stand in front of their turn."""


def chat_template(end: str, blank_after_image: bool) -> str:
    """The originals' prompt as a chat template.

    Args:
        end: what ends an answer, such as `</s>`.
        blank_after_image: the originals tokenize the text after an image apart, so it begins with
            the blank that SentencePiece puts in front of every text; where the tokenizer does not
            do so after a control token, the template must.
    """
    after = " " if blank_after_image else ""
    text = CHAT_TEMPLATE.replace("SYSTEM", SYSTEM.replace("'", "\\'"))
    return text.replace("AFTER", after).replace("END", end)


def read_json(path: Path) -> Json:
    """A JSON object.

    Raises:
        ModelError: naming the file.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(f"{path}: can't be read as JSON ({error})") from error
    if not isinstance(found, dict):
        raise ModelError(f"{path}: not a JSON object")
    return found


def read_weights(directory: Path) -> dict[str, Tensor]:
    """All tensors of a checkpoint directory, memory-mapped where the format allows.

    Args:
        directory: with `*.safetensors`, or `pytorch_model*.bin`.

    Raises:
        ModelError: there are none, or a file holds anything but tensors.
    """
    files = sorted(directory.glob("*.safetensors")) or sorted(directory.glob("pytorch_model*.bin"))
    if not files:
        raise ModelError(f"{directory}: no *.safetensors and no pytorch_model*.bin in it")
    weights: dict[str, Tensor] = {}
    for file in files:
        weights |= read_tensors(file)
    for index in directory.glob("*.index.json"):
        missing = set(read_json(index).get("weight_map", {})) - set(weights)
        if missing:
            raise ModelError(f"{index}: {min(missing)} is in none of the files")
    return weights


def adapted(weights: dict[str, Tensor], adapters: Path) -> dict[str, Tensor]:
    """A language model with LoRA adapters folded in, and what was trained beside them.

    Args:
        weights: of the language model.
        adapters: directory with `adapter_config.json`, `adapter_model.*` and
            `non_lora_trainables.bin`, as LLaVA leaves it.

    Raises:
        ModelError: an adapter of a layer that the model does not have.
    """
    settings = read_json(adapters / "adapter_config.json")
    scale = settings["lora_alpha"] / settings["r"]
    files = sorted(adapters.glob("adapter_model.*"))
    if not files:
        raise ModelError(f"{adapters}: no adapter_model.safetensors and no adapter_model.bin")
    parts = {
        name.removeprefix("base_model.model."): v for name, v in read_tensors(files[0]).items()
    }
    out = dict(weights)
    for name, down in parts.items():
        if not name.endswith(".lora_A.weight"):
            continue
        layer = name.removesuffix(".lora_A.weight") + ".weight"
        if layer not in out:
            raise ModelError(f"{files[0]}: adapts {layer}, which the model does not have")
        up = parts[name.replace(".lora_A.", ".lora_B.")]
        change = scale * (up.float() @ down.float())
        out[layer] = (out[layer].float() + change).to(out[layer].dtype)
    trained = adapters / "non_lora_trainables.bin"
    if trained.exists():
        others = read_tensors(trained)
        out |= {name.replace("base_model.model.", ""): value for name, value in others.items()}
    return out


def read_tensors(file: Path) -> dict[str, Tensor]:
    """The tensors of one file; nothing in it is run.

    Raises:
        ModelError: the file is missing or damaged, or holds anything but tensors.
    """
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        found = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except FileNotFoundError:
        raise ModelError(f"{file}: no such file") from None
    except Exception as error:  # torch raises many kinds
        reason = str(error).split(".")[0].split("\n")[0]
        raise ModelError(f"{file}: not a file of tensors ({reason})") from error
    if not isinstance(found, dict) or not all(isinstance(v, Tensor) for v in found.values()):
        raise ModelError(f"{file}: holds other things than tensors")
    return found


def _llama(config: Json) -> PretrainedConfig:
    return LlamaConfig(
        **_sizes(config),
        rms_norm_eps=config.get("rms_norm_eps", 1e-6),
        attention_bias=config.get("attention_bias", False),
        rope_parameters=_rope(config, 1.0),
    )


def _stablelm(config: Json) -> PretrainedConfig:
    epsilon = "norm_eps" if "norm_eps" in config else "layer_norm_eps"
    return StableLmConfig(
        **_sizes(config),
        layer_norm_eps=config.get(epsilon, 1e-5),
        use_qkv_bias=config.get("use_qkv_bias", False),
        rope_parameters=_rope(config, config.get("rope_pct", 0.25)),
    )


def _phi(config: Json) -> PretrainedConfig:
    return PhiConfig(
        **_sizes(config),
        layer_norm_eps=config.get("layer_norm_eps", 1e-5),
        qk_layernorm=config.get("qk_layernorm", False),
        rope_parameters=_rope(config, config.get("partial_rotary_factor", 0.5)),
    )


TEXT_MODELS: dict[str, Callable[[Json], PretrainedConfig]] = {
    "llama": _llama,
    "llava": _llama,
    "llava_llama": _llama,
    "stablelm": _stablelm,
    "stablelm_epoch": _stablelm,
    "tiny_llava_stablelm": _stablelm,
    "phi": _phi,
    "tiny_llava_phi": _phi,
}
"""By the `model_type` of the original config; the last ones of each kind have images."""


def _sizes(config: Json) -> Json:
    names = (
        *("vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers"),
        *("num_attention_heads", "max_position_embeddings", "hidden_act", "initializer_range"),
    )
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    known = {name: config[name] for name in names if name in config}
    return {**known, "num_key_value_heads": heads, "tie_word_embeddings": False}


def _rope(config: Json, share: float) -> Json:
    scaling = config.get("rope_scaling") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    rope = {**scaling, "rope_type": kind, "rope_theta": float(config.get("rope_theta", 10000.0))}
    rope.pop("type", None)
    return rope if share == 1.0 else {**rope, "partial_rotary_factor": share}
