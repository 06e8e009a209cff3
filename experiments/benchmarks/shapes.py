"""Models with random weights in the shapes of real ones, and how fast the machine is."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from transformers import (
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from coincide_pl.models.conversion.llava_checkpoints import chat_template
from coincide_pl.models.loading import save_checkpoint
from coincide_pl.models.tiny import tiny_tokenizer

DType = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Shape:
    """Sizes of a LLaVA: width, layers and heads of decoder and tower, MLP, pixels, vocabulary."""

    decoder: tuple[int, int, int]
    mlp: int
    tower: tuple[int, int, int]
    pixels: int
    patch: int
    vocabulary: int
    layers: tuple[int, ...]


SHAPES = {
    "tiny": Shape((128, 6, 4), 336, (96, 4, 4), 64, 8, 512, (0, 1, 2, 3, 4)),
    "small": Shape((512, 12, 8), 1376, (384, 6, 6), 112, 14, 4096, (1, 3, 5, 7, 9)),
    "tinyllava-2b": Shape(
        (2048, 24, 32), 5632, (1152, 26, 16), 378, 14, 100352, (3, 7, 11, 15, 19)
    ),
    "llava-7b": Shape((4096, 32, 32), 11008, (1024, 24, 16), 336, 14, 32064, (3, 9, 15, 21, 27)),
}


def build(shape: Shape, folder: Path, dtype: DType) -> str:
    """Writes a checkpoint with random weights, unless it is there."""
    if (folder / "config.json").exists():
        return str(folder)
    tokenizer = tiny_tokenizer(512)
    width, layers, heads = shape.decoder
    seen, depth, eyes = shape.tower
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=seen,
            intermediate_size=4 * seen,
            num_hidden_layers=depth,
            num_attention_heads=eyes,
            image_size=shape.pixels,
            patch_size=shape.patch,
        ),
        text_config=LlamaConfig(
            vocab_size=max(shape.vocabulary, len(tokenizer)),
            hidden_size=width,
            intermediate_size=shape.mlp,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            num_key_value_heads=heads,
        ),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(shape.pixels // shape.patch) ** 2,
    )
    square = {"height": shape.pixels, "width": shape.pixels}
    processor = LlavaProcessor(
        LlavaImageProcessorPil(do_pad=True, size={"shortest_edge": shape.pixels}, crop_size=square),
        tokenizer,
        patch_size=shape.patch,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=chat_template("</s>", False),
    )
    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    with device():
        model = LlavaForConditionalGeneration(config)
    torch.set_default_dtype(before)
    save_checkpoint(folder, model, processor)
    return str(folder)


def device() -> torch.device:
    """The GPU, or the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def matrix_rate(dtype: DType) -> float:
    """Operations a second of large matrix products."""
    size = 8192 if torch.cuda.is_available() else 2048
    a = torch.randn(size, size, device=device(), dtype=getattr(torch, dtype))
    best = float("inf")
    for _ in range(8):
        begin = now()
        a @ a
        best = min(best, now() - begin)
    return 2 * size**3 / best


def now() -> float:
    """Seconds, once all that was asked of the device is done."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()
