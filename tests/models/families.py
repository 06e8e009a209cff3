"""Tiny models with random weights of many families, in the layout that `save_pretrained` leaves."""

import json
from pathlib import Path

import torch
import transformers
from transformers import AddedToken
from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil
from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
from transformers.models.idefics3.image_processing_pil_idefics3 import Idefics3ImageProcessorPil
from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
    LlavaOnevisionImageProcessorPil,
)
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil
from transformers.models.smolvlm.image_processing_pil_smolvlm import SmolVLMImageProcessorPil

from coincide_pl.models.loading import save_checkpoint
from coincide_pl.models.processors import images_only, without_video
from coincide_pl.models.tiny import tiny_llava, tiny_tokenizer

HIDDEN, LAYERS = 32, 3
VISION = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}


def chatml(image, system=False):
    """A template in the ChatML format, with `image` where one stands."""
    return (
        "{%- for message in messages -%}"
        + (
            "{%- if loop.first and message.role != 'system' -%}"
            "{{ '<|im_start|>system\\nBe kind.<|im_end|>\\n' }}{%- endif -%}"
            if system
            else ""
        )
        + "{{ '<|im_start|>' + message.role + '\\n' }}"
        "{%- if message.content is string -%}{{ message.content }}{%- else -%}"
        "{%- for part in message.content -%}"
        "{%- if part.type == 'image' -%}{{ '"
        + image
        + "' }}{%- else -%}{{ part.text }}{%- endif -%}"
        "{%- endfor -%}{%- endif -%}{{ '<|im_end|>\\n' }}"
        "{%- endfor -%}"
        "{%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}"
    )


TURNS = (
    "{{ bos_token }}{%- for message in messages -%}"
    "{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else 'user') + '\\n' }}"
    "{%- if message.content is string -%}{{ message.content | trim }}{%- else -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ '<start_of_image>' }}"
    "{%- else -%}{{ part.text | trim }}{%- endif -%}"
    "{%- endfor -%}{%- endif -%}{{ '<end_of_turn>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}"
)
"""Gemma's format; it trims what is said."""

UTTERANCES = (
    "{{ '<|im_start|>' }}{%- for message in messages -%}{{ message.role | capitalize }}"
    "{%- if message.content[0].type == 'image' -%}{{ ':' }}{%- else -%}{{ ': ' }}{%- endif -%}"
    "{%- for part in message.content -%}"
    "{%- if part.type == 'image' -%}{{ '<image>' }}{%- else -%}{{ part.text }}{%- endif -%}"
    "{%- endfor -%}{{ '<end_of_utterance>\\n' }}{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ 'Assistant:' }}{%- endif -%}"
)
"""Idefics3's and SmolVLM's format."""


def tokenizer_with(special, end, **named):
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tiny_tokenizer(512).backend_tokenizer,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token=end,
        extra_special_tokens=named,
        model_max_length=2048,
    )
    tokenizer.add_tokens([AddedToken(token, special=True, normalized=False) for token in special])
    return tokenizer


def text_sizes(tokenizer):
    return {
        "vocab_size": len(tokenizer) + -len(tokenizer) % 8,
        "hidden_size": HIDDEN,
        "intermediate_size": 64,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 8,
        "max_position_embeddings": 2048,
        "initializer_range": 0.2,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def onevision():
    tokenizer = tokenizer_with(("<|im_start|>", "<|im_end|>", "<video>"), "<|im_end|>")
    pins = [[32, 32], [32, 64], [64, 32], [64, 64]]
    config = transformers.LlavaOnevisionConfig(
        vision_config={
            **VISION,
            "model_type": "siglip_vision_model",
            "num_hidden_layers": 2,
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        },
        text_config={"model_type": "qwen2", **text_sizes(tokenizer)},
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"),
        image_grid_pinpoints=pins,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=False,
    )
    with without_video():
        processor = transformers.LlavaOnevisionProcessor(
            LlavaOnevisionImageProcessorPil(
                size={"height": 32, "width": 32}, image_grid_pinpoints=pins
            ),
            tokenizer,
            num_image_tokens=16,
            vision_feature_select_strategy="full",
            chat_template=chatml("<image>"),
        )
    return config, processor, "LlavaOnevisionVideoProcessor"


QWEN = ("<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>")


def qwen2_5():
    tokenizer = tokenizer_with((*QWEN, "<|video_pad|>"), "<|im_end|>")
    ids = tokenizer.convert_tokens_to_ids
    config = transformers.Qwen2_5_VLConfig(
        text_config={
            **text_sizes(tokenizer),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
            },
        },
        vision_config={
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": HIDDEN,
            "patch_size": 4,
            "window_size": 16,
            "fullatt_block_indexes": [1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    with without_video():
        processor = transformers.Qwen2_5_VLProcessor(
            Qwen2VLImageProcessorPil(
                size={"shortest_edge": 16 * 16, "longest_edge": 40 * 40}, patch_size=4
            ),
            tokenizer,
            chat_template=chatml("<|vision_start|><|image_pad|><|vision_end|>", system=True),
        )
    return config, processor, "Qwen2VLVideoProcessor"


def qwen3():
    tokenizer = tokenizer_with((*QWEN, "<|video_pad|>"), "<|im_end|>")
    ids = tokenizer.convert_tokens_to_ids
    config = transformers.Qwen3VLConfig(
        text_config={
            **text_sizes(tokenizer),
            "rope_parameters": {
                "rope_type": "default",
                "rope_theta": 10000.0,
                "mrope_section": [2, 1, 1],
                "mrope_interleaved": True,
            },
        },
        vision_config={
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_heads": 4,
            "out_hidden_size": HIDDEN,
            "patch_size": 4,
            "num_position_embeddings": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        image_token_id=ids("<|image_pad|>"),
        video_token_id=ids("<|video_pad|>"),
        vision_start_token_id=ids("<|vision_start|>"),
        vision_end_token_id=ids("<|vision_end|>"),
        tie_word_embeddings=False,
    )
    with without_video():
        processor = transformers.Qwen3VLProcessor(
            Qwen2VLImageProcessorPil(
                size={"shortest_edge": 16 * 16, "longest_edge": 40 * 40}, patch_size=4
            ),
            tokenizer,
            chat_template=chatml("<|vision_start|><|image_pad|><|vision_end|>"),
        )
    return config, processor, "Qwen3VLVideoProcessor"


IDEFICS = (
    *("<fake_token_around_image>", "<end_of_utterance>", "<global-img>", "<|im_start|>"),
    *(f"<row_{i}_col_{j}>" for i in range(1, 3) for j in range(1, 3)),
)


def idefics_config(kind, tokenizer):
    return kind(
        vision_config={
            **VISION,
            "num_hidden_layers": 2,
            "image_size": 32,
            "patch_size": 8,
            "max_image_size": {"longest_edge": 32},
        },
        text_config={"model_type": "llama", **text_sizes(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        scale_factor=2,
        tie_word_embeddings=False,
    )


def smolvlm():
    tokenizer = tokenizer_with(IDEFICS, "<end_of_utterance>")
    with without_video():
        processor = transformers.SmolVLMProcessor(
            SmolVLMImageProcessorPil(
                size={"longest_edge": 64}, max_image_size={"longest_edge": 32}
            ),
            tokenizer,
            None,
            image_seq_len=4,
            chat_template=UTTERANCES,
        )
    return idefics_config(transformers.SmolVLMConfig, tokenizer), processor, "SmolVLMVideoProcessor"


def idefics3():
    tokenizer = tokenizer_with(IDEFICS, "<end_of_utterance>")
    processor = transformers.Idefics3Processor(
        Idefics3ImageProcessorPil(size={"longest_edge": 64}, max_image_size={"longest_edge": 32}),
        tokenizer,
        image_seq_len=4,
        chat_template=UTTERANCES,
    )
    return idefics_config(transformers.Idefics3Config, tokenizer), processor, None


def gemma3():
    named = {
        "image_token": "<image_soft_token>",
        "boi_token": "<start_of_image>",
        "eoi_token": "<end_of_image>",
    }
    tokenizer = tokenizer_with(
        (*named.values(), "<start_of_turn>", "<end_of_turn>"), "<end_of_turn>", **named
    )
    ids = tokenizer.convert_tokens_to_ids
    config = transformers.Gemma3Config(
        text_config={
            **text_sizes(tokenizer),
            "sliding_window": 64,
            "layer_types": ["sliding_attention", "sliding_attention", "full_attention"],
            "query_pre_attn_scalar": 8,
        },
        vision_config={
            **VISION,
            "num_hidden_layers": 2,
            "image_size": 32,
            "patch_size": 8,
            "vision_use_head": False,
        },
        mm_tokens_per_image=4,
        image_token_index=ids("<image_soft_token>"),
        boi_token_index=ids("<start_of_image>"),
        eoi_token_index=ids("<end_of_image>"),
        tie_word_embeddings=False,
    )
    processor = transformers.Gemma3Processor(
        Gemma3ImageProcessorPil(size={"height": 32, "width": 32}),
        tokenizer,
        image_seq_length=4,
        chat_template=TURNS,
    )
    return config, processor, None


def internvl():
    named = {
        "start_image_token": "<img>",
        "end_image_token": "</img>",
        "context_image_token": "<IMG_CONTEXT>",
        "video_token": "<video>",
    }
    tokenizer = tokenizer_with(
        (*named.values(), "<|im_start|>", "<|im_end|>"), "<|im_end|>", **named
    )
    config = transformers.InternVLConfig(
        vision_config={
            **VISION,
            "num_hidden_layers": 2,
            "image_size": [32, 32],
            "patch_size": [8, 8],
        },
        text_config={"model_type": "qwen2", **text_sizes(tokenizer)},
        image_token_id=tokenizer.convert_tokens_to_ids("<IMG_CONTEXT>"),
        downsample_ratio=0.5,
        tie_word_embeddings=False,
    )
    with without_video():
        processor = transformers.InternVLProcessor(
            GotOcr2ImageProcessorPil(
                size={"height": 32, "width": 32}, crop_to_patches=True, max_patches=3
            ),
            tokenizer,
            image_seq_length=4,
            chat_template=chatml("<IMG_CONTEXT>\\n"),
        )
    return config, processor, "InternVLVideoProcessor"


FAMILIES = {
    "LLaVA": None,
    "LLaVA-OneVision": onevision,
    "Qwen2.5-VL": qwen2_5,
    "Qwen3-VL": qwen3,
    "SmolVLM": smolvlm,
    "Idefics3": idefics3,
    "Gemma 3": gemma3,
    "InternVL": internvl,
}


def write(family, directory):
    """Writes a checkpoint as published ones are: a video processor's settings lie there too."""
    if FAMILIES[family] is None:
        tiny_llava(
            str(directory), hidden_size=32, num_layers=LAYERS, vision_hidden_size=32, image_size=32
        )
        return str(directory)
    config, processor, video = FAMILIES[family]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = transformers.AutoModelForImageTextToText.from_config(config)
    tokenizer = processor.tokenizer
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    save_checkpoint(directory, model, images_only(processor))
    if video:
        text = json.dumps({"video_processor_type": video})
        (Path(directory) / "video_preprocessor_config.json").write_text(text)
    return str(directory)
