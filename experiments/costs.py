"""What an experiment costs, from counted operations: GPU-hours of each stage.

Models are built without weights and run without data: PyTorch counts the operations of every
matrix product and attention, forward and backward, for a sample of the mean length.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from torch.utils.flop_counter import FlopCounterMode
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    SiglipVisionConfig,
    StableLmConfig,
)

from coincide_pl.models.lora import LoRA, add_lora
from coincide_pl.models.parts import layer_part, parameters
from coincide_pl.models.reading import Reading, read
from coincide_pl.reporting.tables import Table

CLIP = CLIPVisionConfig(
    hidden_size=1024,
    intermediate_size=4096,
    num_hidden_layers=24,
    num_attention_heads=16,
    image_size=336,
    patch_size=14,
)
SIGLIP = SiglipVisionConfig(
    hidden_size=1152,
    intermediate_size=4304,
    num_hidden_layers=26,
    num_attention_heads=16,
    image_size=384,
    patch_size=14,
    vision_use_head=False,
)


def llama(width: int, mlp: int, layers: int, heads: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=32064,
        hidden_size=width,
        intermediate_size=mlp,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=heads,
    )


MODELS: dict[str, tuple[Any, Any, int]] = {
    "llava-1.5-7b": (llama(4096, 11008, 32, 32), CLIP, 576),
    "llava-1.5-13b": (llama(5120, 13824, 40, 40), CLIP, 576),
    "tinyllava-2b": (
        StableLmConfig(
            vocab_size=100352,
            hidden_size=2048,
            intermediate_size=5632,
            num_hidden_layers=24,
            num_attention_heads=32,
            num_key_value_heads=32,
            use_qkv_bias=True,
        ),
        SIGLIP,
        729,
    ),
}
"""Text model, vision tower and tokens of an image."""


def model_of(name: str) -> Any:
    """A model without weights."""
    text, tower, tokens = MODELS[name]
    config = LlavaConfig(
        text_config=text,
        vision_config=tower,
        image_token_index=text.vocab_size - 1,
        image_seq_length=tokens,
        vision_feature_select_strategy="default" if tower is CLIP else "full",
    )
    with torch.device("meta"):
        return LlavaForConditionalGeneration._from_config(config, dtype=torch.bfloat16)


def inputs(name: str, text_tokens: int) -> dict[str, torch.Tensor]:
    """One sample with an image."""
    text, tower, tokens = MODELS[name]
    length = tokens + text_tokens
    size = tower.image_size
    return {
        "inputs_embeds": torch.empty(1, length, text.hidden_size, device="meta").bfloat16(),
        "attention_mask": torch.empty(1, 1, length, length, device="meta").bfloat16(),
        "pixel_values": torch.empty(1, 3, size, size, device="meta").bfloat16(),
    }


def reading(name: str, text_tokens: int, layers: list[int]) -> int:
    """Operations of one sample of the reference pass."""
    model = model_of(name).eval()
    given = inputs(name, text_tokens)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.model.get_image_features(pixel_values=given.pop("pixel_values"))
        text = model.model.language_model
        readings = [Reading(layer_part(model, "attention_output", layer)) for layer in layers]
        read(text, readings, {**given, "use_cache": False})
    return counter.get_total_flops()


def learning(name: str, text_tokens: int, lora: bool, checkpointing: bool) -> int:
    """Operations of one sample of training, the head on a third of the text."""
    model = model_of(name).train()
    for parameter in parameters(model, "vision_tower"):
        parameter.requires_grad_(False)
    if lora:
        with torch.device("meta"):
            add_lora(model, LoRA(rank=128, alpha=256))
    given = inputs(name, text_tokens)
    with FlopCounterMode(display=False) as counter:
        model.model.get_image_features(pixel_values=given.pop("pixel_values"))
        given["inputs_embeds"].requires_grad_(True)
        hidden = model.model.language_model(**given, use_cache=False).last_hidden_state
        forward = counter.get_total_flops()
        logits = model.lm_head(hidden[:, : max(1, text_tokens // 3)])
        logits.sum().backward()
    again = forward if checkpointing else 0
    return counter.get_total_flops() + again


def costs(
    num_samples: int = 665_298,
    text_tokens: int = 190,
    fraction: float = 0.2,
    target: str = "llava-1.5-7b",
    reference: str = "tinyllava-2b",
    lora: bool = True,
    gpu_tflops: float = 312.0,
    share: float = 0.45,
    data: str | None = None,
) -> None:
    """Print a table of the GPU-hours of each stage.

    Args:
        num_samples: number of samples in the data.
        text_tokens: tokens of a sample, prompt included, without those of its image.
        fraction: share of the data that is selected.
        target: target model, one of llava-1.5-7b, llava-1.5-13b, tinyllava-2b.
        reference: reference model, one of the same.
        lora: whether adapters are trained, or the whole language model.
        gpu_tflops: peak of the GPU in bfloat16, in TFLOP/s; 312 for an A100.
        share: share of this peak that is reached.
        data: a LLaVA-format file, to count samples and text in place of the first two.
    """
    if data is not None:
        items = json.loads(Path(data).read_text())
        num_samples = len(items)
        said = sum(len(turn["value"]) for item in items for turn in item["conversations"])
        text_tokens = 40 + said // 4 // num_samples
    layers = [3, 7, 11, 15, 19]
    read = reading(reference, text_tokens, layers)
    learn = learning(target, text_tokens, lora, True)
    hours = num_samples / (gpu_tflops * 1e12 * share * 3600)
    rows = [
        ["reference reads all", read, read * hours],
        [f"target on {fraction:.0%}", learn, fraction * learn * hours],
        ["target on all", learn, learn * hours],
    ]
    lines = [[what, f"{work / 1e12:.2f}", f"{time:.0f}"] for what, work, time in rows]
    total = (rows[0][2] + rows[1][2]) / rows[2][2]
    title = f"{target}, {num_samples:,} samples of {text_tokens} text tokens"
    print(Table(title, ["stage", "TFLOP a sample", "GPU-hours"], lines).markdown())
    print(f"selecting and training on {fraction:.0%} takes {total:.0%} of training on all")


if __name__ == "__main__":
    auto_cli(costs, as_positional=False)
