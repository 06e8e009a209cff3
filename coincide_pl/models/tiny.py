"""A tiny LLaVA and a tiny CLIP with random weights, checkpoints like any other, to try and test."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    CLIPConfig,
    CLIPModel,
    CLIPProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

from coincide_pl.errors import ModelError
from coincide_pl.models.loading import save_checkpoint

CHAT_TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}
{%- for part in content -%}
{%- if part.type == 'image' -%}{{ '<image>\\n' }}{%- else -%}{{ part.text }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{%- endmacro -%}
{{- bos_token -}}
{%- for message in messages -%}
{%- if message.role == 'system' -%}{{ text(message.content) + ' ' }}
{%- elif message.role == 'user' -%}{{ 'USER: ' + text(message.content) + ' ' }}
{%- else -%}{{ 'ASSISTANT: ' + text(message.content) + eos_token }}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ 'ASSISTANT:' }}{%- endif -%}
"""

WORDS = """
USER: ASSISTANT: a an the is are there not no yes what which where how many color colour shape of in
on this that it image picture photo contain contains does do present describe name count object true
false small large left right top bottom above below circle rectangle triangle square black blue
brown gray green red teal yellow white orange purple pink one two three four five six seven eight
nine ten zero and or with same different compare read say see show shows briefly
"""


def tiny_llava(
    output: str,
    hidden_size: int = 128,
    num_layers: int = 4,
    num_heads: int = 4,
    vision_hidden_size: int = 96,
    vision_num_layers: int = 3,
    vision_num_heads: int = 4,
    image_size: int = 64,
    patch_size: int = 16,
    vocabulary: int = 512,
    words: list[str] | None = None,
    seed: int = 0,
) -> None:
    """Write a LLaVA with random weights and its processor as a checkpoint directory.

    Args:
        output: the directory to write; a checkpoint that is there is replaced.
        hidden_size: width of the text decoder (Llama).
        num_layers: number of decoder layers.
        num_heads: number of attention heads of the decoder.
        vision_hidden_size: width of the vision tower (CLIP).
        vision_num_layers: number of layers of the vision tower.
        vision_num_heads: number of attention heads of the vision tower.
        image_size: side, in pixels, of the squares that images are scaled to.
        patch_size: side of the vision tower's patches, in pixels; an image becomes
            (image_size / patch_size)² tokens.
        vocabulary: tokens of the byte-level vocabulary at most; at least 300.
        words: what should be single tokens beside the demo's words, if the vocabulary has room.
        seed: seed of the weights.

    Raises:
        ModelError: sizes that do not divide.
    """
    for name, size, divisor in (
        ("image_size", image_size, patch_size),
        ("hidden_size", hidden_size, 2 * num_heads),
        ("vision_hidden_size", vision_hidden_size, vision_num_heads),
    ):
        if size < 1 or size % divisor:
            raise ModelError(f"{name}: {size} must be a multiple of {divisor}")
    tokenizer = tiny_tokenizer(vocabulary, words)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=vision_hidden_size,
            intermediate_size=4 * vision_hidden_size,
            num_hidden_layers=vision_num_layers,
            num_attention_heads=vision_num_heads,
            image_size=image_size,
            patch_size=patch_size,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=hidden_size,
            intermediate_size=hidden_size * 8 // 3 // 16 * 16,
            num_hidden_layers=num_layers,
            num_attention_heads=num_heads,
            num_key_value_heads=num_heads,
            max_position_embeddings=2048,
            # The usual 0.02 is meant for widths of thousands; narrow layers would pass on nothing.
            initializer_range=hidden_size**-0.5,
            tie_word_embeddings=True,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        ),
        image_token_index=tokenizer.get_vocab()["<image>"],
        vision_feature_layer=-1,
        vision_feature_select_strategy="default",
        image_seq_length=(image_size // patch_size) ** 2,
        tie_word_embeddings=True,
    )
    processor = LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": image_size},
            crop_size={"height": image_size, "width": image_size},
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
        tokenizer=tokenizer,
        patch_size=patch_size,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = LlavaForConditionalGeneration(config)
    if model.generation_config is not None:
        model.generation_config.eos_token_id = tokenizer.eos_token_id
        model.generation_config.pad_token_id = tokenizer.pad_token_id
    save_checkpoint(Path(output), model, processor)
    logging.getLogger(__name__).info(
        "%s: %.2f M parameters", output, sum(p.numel() for p in model.parameters()) / 1e6
    )


def tiny_clip(
    output: str,
    width: int = 64,
    num_layers: int = 2,
    num_heads: int = 4,
    image_size: int = 64,
    patch_size: int = 16,
    max_length: int = 64,
    vocabulary: int = 512,
    seed: int = 0,
) -> None:
    """Write a CLIP with random weights and its processor as a checkpoint directory.

    Args:
        output: the directory to write; a checkpoint that is there is replaced.
        width: width of both towers, and of the embeddings.
        num_layers: number of layers of each tower.
        num_heads: number of attention heads of each tower.
        image_size: side, in pixels, of the squares that images are scaled to.
        patch_size: side of the vision tower's patches, in pixels.
        max_length: tokens of a text at most.
        vocabulary: tokens of the byte-level vocabulary at most; at least 300.
        seed: seed of the weights.

    Raises:
        ModelError: sizes that do not divide.
    """
    for name, size, divisor in (
        ("image_size", image_size, patch_size),
        ("width", width, num_heads),
    ):
        if size < 1 or size % divisor:
            raise ModelError(f"{name}: {size} must be a multiple of {divisor}")
    tokenizer = tiny_tokenizer(vocabulary)
    begin, end = int(tokenizer.bos_token_id), int(tokenizer.eos_token_id)
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", begin), ("</s>", end)]
    )
    tokenizer.model_max_length = max_length
    tower = {
        "hidden_size": width,
        "intermediate_size": 4 * width,
        "num_hidden_layers": num_layers,
        "num_attention_heads": num_heads,
        "projection_dim": width,
    }
    text = {
        "vocab_size": len(tokenizer),
        "max_position_embeddings": max_length,
        "bos_token_id": begin,
        "eos_token_id": end,
        "pad_token_id": tokenizer.pad_token_id,
    }
    config = CLIPConfig(
        text_config={**tower, **text},
        vision_config={**tower, "image_size": image_size, "patch_size": patch_size},
        projection_dim=width,
    )
    processor = CLIPProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": image_size},
            crop_size={"height": image_size, "width": image_size},
            image_mean=[0.5, 0.5, 0.5],
            image_std=[0.5, 0.5, 0.5],
        ),
        tokenizer=tokenizer,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = CLIPModel(config)
    save_checkpoint(Path(output), model, processor)
    logging.getLogger(__name__).info(
        "%s: %.2f M parameters", output, sum(p.numel() for p in model.parameters()) / 1e6
    )


def tiny_tokenizer(vocabulary: int, more_words: list[str] | None = None) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer in which the demo's words, and some more, are single tokens."""
    special = ["<pad>", "<s>", "</s>", "<image>"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    words = WORDS.split() + (more_words or [])
    text = [f"{w} {w} {w}, {w}. {w}?" for w in words] + [" ".join(words)]
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        special_tokens=special,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        extra_special_tokens={"image_token": "<image>"},
        model_max_length=2048,
    )
