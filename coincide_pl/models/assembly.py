"""Put a LLaVA together from a language model, a vision tower and a new projector: `assemble`."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn
from transformers import (
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)
from transformers.activations import ACT2FN
from transformers.models.auto.modeling_auto import MODEL_MAPPING
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from coincide_pl.data.template import Template
from coincide_pl.errors import ModelError
from coincide_pl.models.conversion.llava_checkpoints import chat_template as llava_template
from coincide_pl.models.language_model import (
    IMAGE,
    LanguageModel,
    lengthen,
    load_language_model,
    load_tokenizer,
    with_image_token,
)
from coincide_pl.models.loading import DType, check_output, save_checkpoint
from coincide_pl.models.vision_tower import VisionTower, load_vision_tower

log = logging.getLogger(__name__)

AS_TEXT = """\
{%- set as_text = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set said = namespace(text='') -%}
{%- if message.content is string -%}{%- set said.text = message.content -%}{%- else -%}
{%- for part in message.content -%}
{%- set said.text = said.text + ('<image>\\n' if part.type == 'image' else part.text) -%}
{%- endfor -%}
{%- endif -%}
{%- set as_text.messages = as_text.messages + [dict(message, content=said.text)] -%}
{%- endfor -%}
{%- set messages = as_text.messages -%}
"""
"""Goes in front of a language model's own chat template, which takes text alone."""
PROBE = "Two red balls lie on a table.\n1 + 1 = 2"
"""A text of which the LLaVA must say what its language model says."""

Strategy = Literal["default", "full"]
"""Which features of an image become tokens: all but a class token, or all."""


def assemble(
    output: str,
    text_model: str,
    vision_tower: str,
    chat_template: str | None = None,
    projector_activation: str = "gelu",
    vision_feature_layer: int = -2,
    vision_feature_strategy: Strategy | None = None,
    pad_images: bool = False,
    dtype: DType = "float32",
    seed: int = 0,
) -> None:
    """Put a LLaVA together from a language model, a vision tower and a new projector.

    The result is a checkpoint in Hugging Face's format. For text alone its logits are the language
    model's, which is checked. The projector has random weights: train it by
    `coincide fit --config models/align`, on captions, before anything else.

    Args:
        output: the directory to write; a checkpoint that is there is replaced.
        text_model: the language model, a checkpoint directory or hub name, or a GGUF file in one
            (`folder/model.gguf`), whose weights are unpacked.
        vision_tower: a CLIP, SigLIP, DINOv2 or other vision transformer, or a model that has such a
            tower, as LLaVA has; a checkpoint directory or hub name with an image processor.
        chat_template: path of a chat template in Jinja (default: the language model's own, with
            images where they stand in a message; LLaVA-1.5's for a language model without one).
        projector_activation: what stands between the projector's two linear layers, by
            transformers' name. LLaVA-1.5 has `gelu`; `linear` makes them one linear map.
        vision_feature_layer: the layer of the tower whose features are taken; -1 is the last one,
            and LLaVA-1.5 takes -2.
        vision_feature_strategy: `default` leaves the class token out, `full` keeps all features
            (default: what the tower has).
        pad_images: pad images to squares with the mean color, as LLaVA-1.5 does, before the tower's
            own image processor scales and crops them.
        dtype: in which the weights are written.
        seed: seed of the projector's weights.

    Raises:
        ModelError: naming the part that can't be used, and why.
        FileError: something else than a checkpoint is at `output`, or one of the parts.
    """
    check_output(output, text_model, vision_tower)
    if projector_activation not in ACT2FN:
        known = ", ".join(sorted(ACT2FN))
        raise ModelError(f"projector_activation: {projector_activation!r} is not one of {known}")
    found = load_tokenizer(text_model)
    words = len(found)
    template = _template(found, chat_template)
    tokenizer = with_image_token(found)
    tower = load_vision_tower(vision_tower, vision_feature_layer, pad_images, dtype)
    strategy = vision_feature_strategy or ("default" if tower.others else "full")
    if strategy == "default" and not tower.others:
        raise ModelError(
            f"vision_feature_strategy: {vision_tower} has no class token to leave out; use full"
        )
    processor = LlavaProcessor(
        image_processor=tower.image_processor,
        tokenizer=tokenizer,
        patch_size=tower.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=tower.others,
        chat_template=template,
    )
    Template(processor)  # refuses one that images have no place in
    language = load_language_model(text_model, dtype)
    lengthen(language, len(tokenizer))
    image_id = int(tokenizer.get_vocab()[IMAGE])
    config = LlavaConfig(
        vision_config=tower.model.config,
        text_config=language.config,
        image_token_index=image_id,
        projector_hidden_act=projector_activation,
        vision_feature_layer=vision_feature_layer,
        vision_feature_select_strategy=strategy,
        image_seq_length=tower.patches + tower.others - int(strategy == "default"),
        tie_word_embeddings=language.config.tie_word_embeddings,
    )
    model = _put_together(config, language, tower, text_model, seed)
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        suppress_tokens=sorted({image_id, *range(words, language.config.vocab_size)}),
    )
    _check_logits(model, language, found, text_model)
    save_checkpoint(output, model, processor)
    log.info(
        "%s: %.2f M parameters, %d tokens for an image",
        output,
        sum(p.numel() for p in model.parameters()) / 1e6,
        config.image_seq_length,
    )


def _template(tokenizer: PreTrainedTokenizerFast, path: str | None) -> str:
    """A chat template that takes images."""
    if path is not None:
        try:
            return Path(path).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ModelError(f"chat_template: {path} can't be read ({error})") from error
    own = tokenizer.chat_template
    text = own.get("default") if isinstance(own, dict) else own
    return AS_TEXT + text if text else llava_template(str(tokenizer.eos_token), False)


def _put_together(
    config: LlavaConfig, language: LanguageModel, tower: VisionTower, name: str, seed: int
) -> Any:
    """A LLaVA of the parts themselves, none of them copied."""
    decoder, head = language.base_model, language.get_output_embeddings()
    kind = MODEL_MAPPING.get(type(language.config), None)
    if type(decoder) is not kind or not hasattr(decoder, "embed_tokens"):
        raise ModelError(f"{name}: a {language.config.model_type} can't be the text model of LLaVA")
    with torch.device("meta"):
        model: Any = LlavaForConditionalGeneration(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        projector = LlavaMultiModalProjector(config).to(head.weight.dtype)
    model.model.language_model = decoder
    model.model.vision_tower = tower.model
    model.model.multi_modal_projector = projector
    model.lm_head = head
    return model.eval()


@torch.no_grad()
def _check_logits(
    model: nn.Module, language: LanguageModel, tokenizer: PreTrainedTokenizerFast, name: str
) -> None:
    """Refuse a language model that does more with its logits than LLaVA does."""
    ids = torch.tensor([tokenizer(PROBE)["input_ids"]])
    ours, theirs = model(input_ids=ids).logits, language(input_ids=ids).logits
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3 * float(theirs.abs().max())):
        raise ModelError(
            f"{name}: a {language.config.model_type} does more with its logits than LLaVA does"
        )
