"""Have a checkpoint read by older versions of transformers as by the newer one that wrote it.

Version 5 keeps what it knows of rotary positions in `rope_parameters`, and has no `vision_model` in
the names of CLIP's and SigLIP's weights. Version 4 reads neither: it would load the checkpoint with
other positions, or towers at random, and predict something else.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import AutoConfig

Json = dict[str, Any]
TOWERS = ("clip_vision_model", "siglip_vision_model")
NEWER_NAME = re.compile(
    r"(^|\.)vision_tower\.(?=(embeddings|encoder|pre_layrnorm|post_layernorm|head)\.)"
)


def write_older(directory: Path) -> bool:
    """Write version 4's spellings into a checkpoint, beside version 5's or in their place.

    Args:
        directory: as `save_pretrained` of version 5 leaves it.

    Returns:
        Whether version 4 reads it as it is meant; where the spellings can't stand together in the
        config, it stays as it was.
    """
    path = directory / "config.json"
    config: Json = json.loads(path.read_text(encoding="utf-8"))
    both = with_older(config)
    if _meaning(both) != _meaning(config):
        return False
    path.write_text(_pretty(both), encoding="utf-8")
    if config.get("vision_config", {}).get("model_type") in TOWERS:
        for file in directory.glob("*.safetensors"):
            _rename(file)
        for index in directory.glob("*.safetensors.index.json"):
            content: Json = json.loads(index.read_text(encoding="utf-8"))
            content["weight_map"] = {older(k): v for k, v in content["weight_map"].items()}
            index.write_text(_pretty(content), encoding="utf-8")
    return True


def with_older(config: Json) -> Json:
    """A model's config, and the configs in it, with the older names of rotary positions."""
    both = {k: with_older(v) if isinstance(v, dict) else v for k, v in config.items()}
    tied, text = config.get("tie_word_embeddings"), both.get("text_config", {})
    if tied is not None and "tie_word_embeddings" in text:
        text["tie_word_embeddings"] = tied  # version 4 goes by this one, version 5 by the other
    rope = config.get("rope_parameters")
    if not rope:
        return both
    nested = all(isinstance(value, dict) for value in rope.values())
    main = dict(rope.get("full_attention", {}) if nested else rope)
    local = rope.get("sliding_attention", {}) if nested else {}
    both["rope_theta"] = main.pop("rope_theta", None)
    if "rope_theta" in local:
        both["rope_local_base_freq"] = local["rope_theta"]
    if "partial_rotary_factor" in main:
        both["partial_rotary_factor"] = main.pop("partial_rotary_factor")
    if main != {"rope_type": "default"}:  # without a type alone, for that is what there is anyway
        both["rope_scaling"] = main
    return {name: value for name, value in both.items() if value is not None or name in config}


def older(name: str) -> str:
    """A weight's name in version 4."""
    return NEWER_NAME.sub(r"\1vision_tower.vision_model.", name)


def _meaning(config: Json) -> Json:
    """What this version of transformers reads from a model's config."""
    text = {k: v for k, v in config.get("text_config", {}).items() if k != "tie_word_embeddings"}
    plain = {**config, "text_config": text} if text else config
    kind = type(AutoConfig.for_model(config["model_type"]))
    read: Json = kind.from_dict(copy.deepcopy(plain)).to_dict()
    return read


def _pretty(content: Json) -> str:
    return json.dumps(content, indent=2, sort_keys=True) + "\n"


def _rename(file: Path) -> None:
    with safe_open(file, "pt") as weights:
        names, about = list(weights.keys()), weights.metadata()
    if any(older(name) != name for name in names):
        save_file({older(name): value for name, value in load_file(file).items()}, file, about)
