"""The reference model: reads every sample once, and gives what selectors choose by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, ProcessorMixin

from coincide_pl.data.collation import Batch
from coincide_pl.data.encoding import IGNORE
from coincide_pl.errors import ModelError
from coincide_pl.models.loading import DType, check_directory, checkpoint_fingerprint, load_model
from coincide_pl.models.logits import of_the_head
from coincide_pl.models.parts import attention_outputs, check_parts
from coincide_pl.models.processors import load_processor
from coincide_pl.models.shared_prefix import run_until

Signal = Literal["activations", "el2n", "nll", "margin", "last_token", "mean_token"]
"""What one pass can give; see `ReferenceModule`."""

LOGITS = 1 << 26
"""Logits computed at once (tokens times vocabulary), 256 MiB in float32; two copies are held."""


class ReferenceModule(lightning.LightningModule):
    """Gives per-sample signals of a batch, as many as are asked for in one forward pass.

    `activations` are COINCIDE's features (see `activations`), `el2n`, `nll` and `margin` are
    means over a sample's answer tokens (see `answer_statistics`), `last_token` and `mean_token` are
    the last layer's hidden states, after the final norm, at the last real token and averaged over
    all real tokens (see `token_embeddings`).

    With activations alone the model runs up to the attention output projection of the deepest layer
    asked for, and nothing after it is computed. The language-model head runs only for the answer
    tokens, in chunks of at most `LOGITS` logits.
    """

    def __init__(
        self,
        pretrained: str,
        layers: list[int] | None = None,
        signals: list[Signal] | None = None,
        parts: dict[str, str] | None = None,
        dtype: DType = "float32",
        attn_implementation: str = "sdpa",
        tanh: bool = True,
    ) -> None:
        """Checks that there is a checkpoint; it is loaded when a step needs it.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub.
            layers: decoder layers whose activations are read, counted from 0 (the paper: 3, 7, 11,
                15, 19 of 24).
            signals: what to write (default: activations).
            parts: paths of parts that are not found by themselves: `decoder_layers` (their list),
                `attention_output` (within a decoder layer, such as `self_attn.o_proj`).
            dtype: in which the weights are held and the forward pass runs.
            attn_implementation: attention implementation of transformers.
            tanh: whether activations pass through tanh, as in the paper, before they are
                normalised.

        Raises:
            ModelError: no checkpoint, no signals, a signal twice, or activations without layers.
        """
        super().__init__()
        check_directory(pretrained, "config.json")
        self.wanted: list[Signal] = ["activations"] if signals is None else list(signals)
        if not self.wanted or len(set(self.wanted)) != len(self.wanted):
            raise ModelError(f"signals: {self.wanted} must be different ones, and at least one")
        if "activations" in self.wanted and not layers:
            raise ModelError("layers: activations need decoder layers, such as [3, 7, 11, 15, 19]")
        self.pretrained = pretrained
        self.parts = parts or {}
        check_parts(self.parts)
        self.weights_dtype: DType = dtype
        self.attn_implementation = attn_implementation
        self.tanh = tanh
        self.layers = list(layers or []) if "activations" in self.wanted else []
        self.processor: ProcessorMixin = load_processor(pretrained)
        self.model: PreTrainedModel | None = None

    def configure_model(self) -> None:
        """Loads the checkpoint."""
        if self.model is None:
            self.model = load_model(
                self.pretrained,
                dtype=self.weights_dtype,
                attn_implementation=self.attn_implementation,
            ).eval()
            self.projections: list[nn.Module] = []
            if self.layers:
                self.projections = attention_outputs(self.model, self.layers, self.parts)

    @property
    def fingerprint(self) -> str:
        """Digest of the checkpoint that the signals come from."""
        return checkpoint_fingerprint(self.pretrained)

    @property
    def signals(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape of one row and dtype, as they are stored, of each signal, by name."""
        self.configure_model()
        assert self.model is not None
        hidden = self.model.config.get_text_config().hidden_size
        known: dict[Signal, tuple[tuple[int, ...], str]] = {
            "activations": ((2 * len(self.layers) * hidden,), "float16"),
            "el2n": ((), "float32"),
            "nll": ((), "float32"),
            "margin": ((), "float32"),
            "last_token": ((hidden,), "float16"),
            "mean_token": ((hidden,), "float16"),
        }
        return {name: known[name] for name in known if name in self.wanted}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """One row per sample and signal.

        Returns:
            Of the signals asked for: `activations` float16 [B, 2 * layers * hidden]; `el2n`,
            `nll` and `margin` float32 [B]; `last_token` and `mean_token` float32 [B, hidden].
        """
        assert self.model is not None
        head = None if self.wanted == ["activations"] else self.model.get_output_embeddings()
        outputs, hidden = run_until(self.model, self.projections, head, batch)
        rows: dict[str, Tensor] = {}
        if outputs:
            rows["activations"] = activations(outputs, batch.image_mask, batch.text_mask, self.tanh)
        if hidden is not None:
            with torch.inference_mode():
                if {"el2n", "nll", "margin"} & set(self.wanted):
                    rows |= answer_statistics(self.model, hidden, batch.labels)
                rows |= token_embeddings(hidden, batch.attention_mask)
        return {name: rows[name] for name in self.wanted}


def activations(
    outputs: Sequence[Tensor], image_mask: Tensor, text_mask: Tensor, tanh: bool = True
) -> Tensor:
    """COINCIDE's features of a batch: method section 3.1 of arXiv 2406.10995.

    For each layer, the output of the attention block's output projection is averaged over the image
    tokens and over the text tokens after the image; each mean v becomes tanh(v) / ‖tanh(v)‖. The
    2M vectors stand side by side, [visual, text] per layer, divided by sqrt(2M): a row has norm 1,
    or sqrt(1/2) where one modality is missing, whose half is zero.

    Args:
        outputs: M tensors [B, T, H], one per layer.
        image_mask: bool [B, T], true at image tokens.
        text_mask: bool [B, T], true at text tokens after the image.
        tanh: without it v becomes v / ‖v‖.

    Returns:
        float16 [B, 2 * M * H].
    """
    masks = torch.stack([image_mask, text_mask], 1).float()  # [B, 2, T]
    weights = masks / masks.sum(2, keepdim=True).clamp(min=1)
    means = [weights @ output.float() for output in outputs]  # M × [B, 2, H]
    stacked = torch.stack(means, 1)  # [B, M, 2, H]
    rows = F.normalize(stacked.tanh() if tanh else stacked, dim=-1)
    return (rows.flatten(1) / math.sqrt(2 * len(outputs))).half()


def answer_statistics(
    model: PreTrainedModel, hidden: Tensor, labels: Tensor, chunk: int = LOGITS
) -> dict[str, Tensor]:
    """How well a model predicts each sample's answer, averaged over its answer tokens.

    With p the softmax over the vocabulary where token y is to be predicted, in float32:

        el2n        ‖p - onehot(y)‖₂            (Paul et al., 2021)
        nll         -log p(y)                   (the log of perplexity, once averaged)
        margin         p(y) - max_{v ≠ y} p(v)     (the margin of Pleiss et al., 2020)

    A sample of which no answer token is left, cut at the maximum length or empty, counts as
    predicted perfectly: 0, 0 and 1. Nothing can be learned from it, and what keeps the hardest
    keeps it last.

    Args:
        model: whose head makes the logits.
        hidden: [B, T, H], what the head reads.
        labels: int64 [B, T], -100 where there is no answer token.
        chunk: logits held at once.

    Returns:
        float32 [B] each.
    """
    head = model.get_output_embeddings()
    answers = labels[:, 1:] != IGNORE  # [B, T - 1]
    states, targets = hidden[:, :-1][answers], labels[:, 1:][answers, None]  # [L, H], [L, 1]
    step = max(1, chunk // model.config.get_text_config().vocab_size)
    tokens = torch.empty(3, len(states), device=hidden.device)
    for start in range(0, len(states), step):
        part, label = slice(start, start + step), targets[start : start + step]
        p = of_the_head(head(states[part]).float(), model).log_softmax(1)  # [l, V]
        nll = -p.gather(1, label)[:, 0]
        p.exp_()
        right = p.gather(1, label)[:, 0]
        others = p.scatter_(1, label, 0.0)
        distance = torch.hypot(torch.linalg.vector_norm(others, dim=1), 1 - right)
        tokens[:, part] = torch.stack([distance, nll, right - others.amax(1)])
    grid = torch.zeros(3, *answers.shape, dtype=torch.float64, device=hidden.device)
    grid[:, answers] = tokens.double()
    counts = answers.sum(1)
    means = (grid.sum(2) / counts.clamp(min=1)).float()  # [3, B]
    means[2, counts == 0] = 1.0
    return dict(zip(("el2n", "nll", "margin"), means, strict=True))


def token_embeddings(hidden: Tensor, attention_mask: Tensor) -> dict[str, Tensor]:
    """Hidden states at the last real token, and their mean over the real tokens.

    Args:
        hidden: [B, T, H].
        attention_mask: int64 [B, T], 0 at padding, on either side.

    Returns:
        `last_token` and `mean_token`: float32 [B, H].
    """
    places = torch.arange(hidden.shape[1], device=hidden.device)
    last = (places * attention_mask).argmax(1)  # [B]
    real = attention_mask.unsqueeze(1).float()  # [B, 1, T]
    means = (real @ hidden.float())[:, 0] / real.sum(2)
    return {
        "last_token": hidden[torch.arange(len(hidden), device=hidden.device), last].float(),
        "mean_token": means,
    }
