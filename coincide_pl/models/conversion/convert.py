"""Turn original LLaVA-1.5 and TinyLLaVA checkpoints into Hugging Face's format."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPVisionConfig,
    CLIPVisionModel,
    GenerationConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from coincide_pl.errors import ModelError
from coincide_pl.models.conversion.llama_tokenizer import llama_tokenizer
from coincide_pl.models.conversion.llava_checkpoints import (
    TEXT_MODELS,
    Json,
    adapted,
    chat_template,
    read_json,
    read_tensors,
    read_weights,
)
from coincide_pl.models.loading import (
    check_output,
    first_line,
    load_whole,
    quietly,
    save_checkpoint,
)

log = logging.getLogger(__name__)

Tower = Any
"""A `CLIPVisionModel` or a `SiglipVisionModel`, whose configs are typed too widely to be used."""

IMAGE = "<image>"
TOWER = "usable vision tower"
MULTIPLE = 64
"""What vocabularies are filled up to a multiple of, which matrix units like."""
PROJECTOR = re.compile(r"(?:base_model\.model\.)?model\.mm_projector\.(\d+)\.(weight|bias)")


def convert(
    checkpoint: str,
    output: str,
    vision_tower: str | None = None,
    projector: str | None = None,
    tokenizer: str | None = None,
    base: str | None = None,
) -> None:
    """Convert an original LLaVA-1.5 or TinyLLaVA checkpoint to Hugging Face's format.

    A language model alone (Vicuna) becomes LLaVA-1.5's true starting point with `--projector` and
    `--vision_tower`. Logits are the original's; the tokens that the vocabulary is filled up with
    are never generated, and take no part in the loss.

    Args:
        checkpoint: directory of the original, in the layout of liuhaotian/llava-v1.5-*, of
            TinyLLaVA-2.0B with a StableLM or Phi text model, or of a language model alone.
        output: the directory to write; a checkpoint that is there is replaced.
        vision_tower: checkpoint of the CLIP or SigLIP tower, a directory or a name on the hub
            (default: what the checkpoint's config names, beside the checkpoint or on the hub).
        projector: path of `mm_projector.bin` of the first training stage.
        tokenizer: directory or hub name of a tokenizer, where the checkpoint has no usable one.
        base: directory of the language model, for a checkpoint of LoRA adapters alone (in the
            layout of liuhaotian/llava-v1.5-7b-lora), which are folded into it.

    Raises:
        ModelError: naming the file and what is wrong with it.
        FileError: something else than a checkpoint is at `output`, or one that is read.
    """
    check_output(output, checkpoint, vision_tower, projector, tokenizer, base)
    source = Path(checkpoint)
    if not source.is_dir():
        raise ModelError(f"{checkpoint}: no such directory")
    config = read_json(source / "config.json")
    kind = config.get("model_type")
    if kind not in TEXT_MODELS:
        raise ModelError(
            f"{source / 'config.json'}: model_type {kind!r} is not one of {', '.join(TEXT_MODELS)}"
        )
    if config.get("image_aspect_ratio") == "anyres":
        raise ModelError(f"{checkpoint}: LLaVA-1.6 is published in Hugging Face's format already")
    if (source / "adapter_config.json").exists():
        if base is None:
            raise ModelError(f"{checkpoint}: LoRA adapters alone; give their model with --base")
        weights = adapted(read_weights(Path(base)), source)
    else:
        weights = read_weights(source)
    if projector is not None:
        weights |= read_tensors(Path(projector))
    tower, layer, strategy = _tower(_tower_path(source, config, vision_tower), config)
    text = TEXT_MODELS[kind](config)
    tokens, blank = _tokenizer(tokenizer or checkpoint)
    image_id = tokens.get_vocab()[IMAGE]
    rows = _row_count(weights, text.vocab_size, source)
    if image_id >= rows:
        text.vocab_size = -(-(image_id + 1) // MULTIPLE) * MULTIPLE
    patches = (tower.config.image_size // tower.config.patch_size) ** 2
    made = LlavaConfig(
        vision_config=tower.config,
        text_config=text,
        image_token_index=image_id,
        projector_hidden_act="gelu",
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
        image_seq_length=patches,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):  # nothing is held twice
        model = LlavaForConditionalGeneration(made)
    state = _state(weights, tower, text.vocab_size, source)
    try:
        model.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise ModelError(f"{checkpoint}: weights do not fit its config: {lines[0]}") from error
    model.generation_config = GenerationConfig(
        bos_token_id=tokens.bos_token_id,
        eos_token_id=tokens.eos_token_id,
        pad_token_id=tokens.pad_token_id,
        suppress_tokens=list(range(rows, text.vocab_size)) or None,
    )
    processor = LlavaProcessor(
        image_processor=_image_processor(tower, config.get("image_aspect_ratio", "pad")),
        tokenizer=tokens,
        patch_size=tower.config.patch_size,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=int(strategy == "default"),
        chat_template=chat_template(str(tokens.eos_token), blank),
    )
    save_checkpoint(output, model, processor)
    log.info("%s: %.2f B parameters", output, sum(p.numel() for p in model.parameters()) / 1e9)


def _tower_path(source: Path, config: Json, given: str | None) -> str:
    name = given or config.get("mm_vision_tower") or config.get("vision_tower")
    if not name:
        raise ModelError(f"{source}: names no vision tower; give --vision_tower")
    if given is None:
        for folder in (source, source.parent):
            if (folder / Path(name).name).is_dir():
                return str(folder / Path(name).name)
    if not Path(name).is_dir() and (Path(name).is_absolute() or len(Path(name).parts) != 2):
        raise ModelError(f"{name}: no such vision tower; give its place with --vision_tower")
    return name


def _tower(name: str, config: Json) -> tuple[Tower, int, Literal["default", "full"]]:
    """The tower, and which of its layers' features are taken, and how.

    TinyLLaVA takes the SigLIP tower's last layer but one by leaving the last away, which some of
    its files do not hold.
    """
    layer = int(config.get("mm_vision_select_layer", -2))
    try:
        own = AutoConfig.from_pretrained(name, trust_remote_code=False)
        own = getattr(own, "vision_config", own)
        if isinstance(own, SiglipVisionConfig):
            own.num_hidden_layers += layer + 1
            own.vision_use_head = False
            return load_whole(SiglipVisionModel, name, TOWER, config=own), -1, "full"
        if isinstance(own, CLIPVisionConfig):
            return load_whole(CLIPVisionModel, name, TOWER, config=own), layer, "default"
    except (OSError, ValueError, RuntimeError) as error:
        raise ModelError(f"{name}: no {TOWER}: {first_line(error)}") from error
    raise ModelError(f"{name}: a {own.model_type} vision tower is not known; CLIP and SigLIP are")


def _tokenizer(name: str) -> tuple[PreTrainedTokenizerFast, bool]:
    """The tokenizer with an image token, and whether a text after one needs a blank in front."""
    folder = Path(name)
    extra = {"image_token": IMAGE}
    if (folder / "tokenizer.model").is_file():
        path = folder / "tokenizer_config.json"
        settings = read_json(path) if path.is_file() else {}
        return llama_tokenizer(folder, settings, extra), not settings.get("legacy", True)
    try:
        with quietly():
            found = AutoTokenizer.from_pretrained(name, trust_remote_code=False)
            tokens = PreTrainedTokenizerFast(
                tokenizer_object=found.backend_tokenizer,
                bos_token=found.bos_token,
                eos_token=found.eos_token,
                unk_token=found.unk_token,
                pad_token=found.pad_token or found.unk_token or found.eos_token,
                extra_special_tokens=extra,
                model_max_length=min(found.model_max_length, 1 << 30),
                clean_up_tokenization_spaces=False,
            )
    except Exception as error:  # transformers raises many kinds
        raise ModelError(
            f"{name}: no usable tokenizer ({first_line(error)}); give one with --tokenizer"
        ) from error
    if tokens.eos_token is None:
        raise ModelError(f"{name}: its tokenizer has no end token")
    return tokens, "Metaspace" in str(found.backend_tokenizer.pre_tokenizer)


def _row_count(weights: dict[str, Tensor], vocab_size: int, source: Path) -> int:
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        if name not in weights:
            raise ModelError(f"{source}: no {name} in its weights")
        if len(weights[name]) != vocab_size:
            raise ModelError(f"{source}: {name} has {len(weights[name])} rows, not {vocab_size}")
    return vocab_size


def _state(
    weights: dict[str, Tensor], tower: Tower, vocab_size: int, source: Path
) -> dict[str, Tensor]:
    """The weights by the names that they have in `LlavaForConditionalGeneration`."""
    dtype = weights["model.embed_tokens.weight"].dtype
    state: dict[str, Tensor] = {}
    projector: dict[int, dict[str, Tensor]] = {}
    for name, value in weights.items():
        if "vision_tower" in name or name.endswith("rotary_emb.inv_freq"):
            continue  # the originals read the tower from its own place, too
        if found := PROJECTOR.fullmatch(name):
            projector.setdefault(int(found[1]), {})[found[2]] = value.to(dtype)
        elif name in ("lm_head.weight", "model.embed_tokens.weight"):
            more = value.new_zeros(vocab_size - len(value), value.shape[1])
            key = name.replace("model.", "model.language_model.")
            state[key] = torch.cat([value, more]) if len(more) else value
        else:
            state[re.sub(r"^model\.", "model.language_model.", name)] = value
    if sorted(projector) != [0, 2]:
        raise ModelError(
            f"{source}: its projector is not two linear layers with a GELU between"
            if projector
            else f"{source}: has no projector; give mm_projector.bin with --projector"
        )
    for name, number in (("linear_1", 0), ("linear_2", 2)):
        for part, value in projector[number].items():
            state[f"model.multi_modal_projector.{name}.{part}"] = value
    for name, value in tower.state_dict().items():
        state[f"model.vision_tower.{name}"] = value.to(dtype)
    return state


def _image_processor(tower: Tower, aspect: str | None) -> LlavaImageProcessorPil:
    """CLIP's or SigLIP's pixels, after padding to a square with the mean color."""
    size = tower.config.image_size
    square = {"height": size, "width": size}
    if isinstance(tower, SiglipVisionModel):
        half = [0.5, 0.5, 0.5]
        return LlavaImageProcessorPil(
            do_pad=aspect == "pad",
            size=square,
            do_center_crop=False,
            image_mean=half,
            image_std=half,
        )
    return LlavaImageProcessorPil(
        do_pad=aspect == "pad", size={"shortest_edge": size}, crop_size=square
    )
