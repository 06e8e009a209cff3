"""Load a language model and its tokenizer, also from a GGUF file, as parts of a LLaVA."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast
from transformers.utils import is_gguf_available

from coincide_pl.errors import ModelError
from coincide_pl.models.loading import DType, check_directory, first_line, load_whole, quietly

IMAGE, PAD = "<image>", "<pad>"
MULTIPLE = 64
"""What vocabularies are filled up to a multiple of, which matrix units like."""


class LanguageModel(Protocol):
    """A causal language model of transformers, as far as a LLaVA takes it over."""

    config: Any
    base_model: Any

    def __call__(self, *, input_ids: Tensor) -> Any:
        """Logits at each token."""

    def get_input_embeddings(self) -> nn.Embedding:
        """The rows of its vocabulary."""

    def get_output_embeddings(self) -> nn.Linear:
        """Its head."""

    def resize_token_embeddings(
        self, new_num_tokens: int, pad_to_multiple_of: int, mean_resizing: bool
    ) -> nn.Embedding:
        """Adds rows to both."""


def load_language_model(name: str, dtype: DType = "float32") -> LanguageModel:
    """A causal language model.

    Args:
        name: a directory, a name on the hub, or a GGUF file in one of these, which is unpacked.
        dtype: in which the weights are held.

    Raises:
        ModelError: there is no such model, or its head is more than a matrix.
    """
    place, options = _place(name)
    if options and (packed := getattr(transformers, "GgufConfig", None)):
        options["quantization_config"] = packed(dequantize=True)
    with quietly():
        found: Any = load_whole(
            AutoModelForCausalLM, place, "language model", dtype=getattr(torch, dtype), **options
        )
    vars(found.config).pop("quantization_config", None)
    head = found.get_output_embeddings()
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ModelError(f"{name}: its head has a bias, which LLaVA's has not")
    model: LanguageModel = found.eval()
    return model


def load_tokenizer(name: str) -> PreTrainedTokenizerFast:
    """The fast tokenizer of a language model.

    Args:
        name: see `load_language_model`.

    Raises:
        ModelError: there is none, or it has no end token.
    """
    place, options = _place(name)
    try:
        with quietly():
            found: Any = AutoTokenizer.from_pretrained(place, trust_remote_code=False, **options)
    except Exception as error:  # transformers raises many kinds
        raise ModelError(f"{name}: no usable tokenizer: {first_line(error)}") from error
    if not found.is_fast:
        raise ModelError(f"{name}: a fast tokenizer (tokenizer.json) is needed")
    if found.eos_token is None:
        raise ModelError(f"{name}: its tokenizer has no end token")
    tokenizer: PreTrainedTokenizerFast = found
    return tokenizer


def with_image_token(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    """The tokenizer with an image token, and with a pad token that is not the end token.

    Trainers that mask labels by the pad token would never train a model to end otherwise.
    """
    taken = (None, tokenizer.eos_token)
    known = [t for t in (tokenizer.pad_token, tokenizer.unk_token) if t not in taken]
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer.backend_tokenizer,
        bos_token=tokenizer.bos_token,
        eos_token=tokenizer.eos_token,
        unk_token=tokenizer.unk_token,
        pad_token=known[0] if known else PAD,
        extra_special_tokens={"image_token": IMAGE},
        model_max_length=min(tokenizer.model_max_length, 1 << 30),
        clean_up_tokenization_spaces=False,
    )


@torch.no_grad()
def lengthen(model: LanguageModel, tokens: int) -> None:
    """Gives a language model a row for each token, where it has fewer; new rows are zeros.

    Args:
        model: which is changed.
        tokens: how many there are.
    """
    rows = len(model.get_input_embeddings().weight)
    if tokens <= rows:
        return
    with torch.random.fork_rng(devices=[]):
        model.resize_token_embeddings(tokens, pad_to_multiple_of=MULTIPLE, mean_resizing=False)
    for layer in (model.get_input_embeddings(), model.get_output_embeddings()):
        layer.weight[rows:] = 0


def _place(name: str) -> tuple[str, dict[str, Any]]:
    """Where a model is, and the options of `from_pretrained` that say which file of it."""
    if not name.endswith(".gguf"):
        check_directory(name, "config.json")
        return name, {}
    path = Path(name)
    if not is_gguf_available():
        raise ModelError(
            f"{name}: reading GGUF needs one more package: pip install 'coincide_pl[gguf]'"
        )
    check_directory(str(path.parent), path.name)
    return str(path.parent), {"gguf_file": path.name}
