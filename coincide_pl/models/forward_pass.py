"""One pass of a model over a batch: all that several signals need, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from transformers import PreTrainedModel

from coincide_pl.data.collation import Batch
from coincide_pl.data.encoding import IGNORE
from coincide_pl.models.logits import of_the_head
from coincide_pl.models.parts import layer_part
from coincide_pl.models.reading import Reading
from coincide_pl.models.shared_prefix import run_until
from coincide_pl.signals.forward import (
    Forward,
    LayerOutput,
    ModelFacts,
    Needs,
    OutputKind,
    Predictions,
    TokenValue,
)

LOGITS = 1 << 26
"""Logits computed at once (tokens times vocabulary), 256 MiB in float32; two copies are held."""


class ForwardPass:
    """Runs a model over batches for the signals that are asked for.

    The model runs up to the deepest layer output that is needed, and nothing after it is computed.
    Where hidden states or values at answer tokens are needed, it runs up to its head, and the head
    alone then runs for the answer tokens, in chunks, once for all values.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        needs: Needs,
        parts: Mapping[str, str] | None = None,
        tokenizer: Any = None,
    ) -> None:
        """Finds the modules that are read.

        Args:
            model: an image-text-to-text model.
            needs: of all signals together.
            parts: paths of modules that are not found by themselves, see `layer_part`.
            tokenizer: what makes the tokens, for signals that read them.

        Raises:
            ModelError: the model lacks a layer or a module.
        """
        self.model, self.needs, self.tokenizer = model, needs, tokenizer
        places = sorted(needs.outputs, key=lambda place: (place.layer, place.kind))
        self.readings = {place: reading(model, place, parts) for place in places}
        self.head = None
        if needs.hidden or needs.token_values:
            self.head = Reading(model.get_output_embeddings(), "input")
        self.others = {
            form: ForwardPass(model, own, parts, tokenizer) for form, own in needs.passes.items()
        }

    @torch.inference_mode()
    def __call__(self, batch: Batch) -> Forward:
        """What the signals need of a batch."""
        forward = Forward(batch, told_by=self.tokenizer)
        wanted = [*self.readings.values(), *([self.head] if self.head else [])]
        found = run_until(self.model, wanted, batch) if wanted else []
        forward.outputs = dict(zip(self.readings, found, strict=False))
        if self.head:
            if self.needs.hidden:
                forward.hidden = found[-1]
            forward.token_values = token_values(
                self.model, found[-1], batch.labels, self.needs.token_values
            )
        forward.passes = {form: run(batch.rewritten[form]) for form, run in self.others.items()}
        return forward


def reading(
    model: PreTrainedModel, place: LayerOutput, parts: Mapping[str, str] | None = None
) -> Reading:
    """How a model's layer output is read; see `layer_part`."""
    module = layer_part(model, place.kind, place.layer, parts)
    at: dict[OutputKind, Literal["input", "weights"]] = {
        "attention_weights": "weights",
        "mlp_activation": "input",
    }
    return Reading(module, at.get(place.kind, "output"))


def token_values(
    model: PreTrainedModel,
    hidden: Tensor,
    labels: Tensor,
    functions: Iterable[TokenValue],
    chunk: int = LOGITS,
) -> dict[TokenValue, Tensor]:
    """What is predicted at answer tokens, by several functions of the same predictions.

    Args:
        model: whose head makes the logits.
        hidden: [B, T, H], what the head reads.
        labels: int64 [B, T], -100 where there is no answer token.
        functions: of `Predictions`.
        chunk: logits held at once.

    Returns:
        float32 [L] each, row by row.
    """
    functions = list(functions)
    if not functions:
        return {}
    head = model.get_output_embeddings()
    answers = labels[:, 1:] != IGNORE  # [B, T - 1]
    states, targets = hidden[:, :-1][answers], labels[:, 1:][answers, None]  # [L, H], [L, 1]
    step = max(1, chunk // model.config.get_text_config().vocab_size)
    values = torch.empty(len(functions), len(states), device=hidden.device)
    for start in range(0, len(states), step):
        part = slice(start, start + step)
        log_p = of_the_head(head(states[part]).float(), model).log_softmax(1)  # [l, V]
        predictions = Predictions(log_p, targets[part])
        for function, row in zip(functions, values, strict=True):
            row[part] = function(predictions)
    return dict(zip(functions, values, strict=True))


def model_facts(model: PreTrainedModel) -> ModelFacts:
    """The sizes of a model's text decoder."""
    text = model.config.get_text_config()
    return ModelFacts(
        hidden_size=text.hidden_size,
        num_layers=text.num_hidden_layers,
        num_heads=text.num_attention_heads,
        intermediate_size=getattr(text, "intermediate_size", 0),
        vocab_size=text.vocab_size,
    )
