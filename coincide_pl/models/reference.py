"""The reference model: reads every sample once, and gives what selectors choose by."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import lightning
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, ProcessorMixin

from coincide_pl.data.collation import Batch
from coincide_pl.models.anatomy import attention_outputs
from coincide_pl.models.images import model_inputs, shared_images
from coincide_pl.models.loading import DType, check_directory, checkpoint_fingerprint, load_model
from coincide_pl.models.processors import load_processor


class ReferenceModule(lightning.LightningModule):
    """Gives the activations of COINCIDE (Lee et al., 2024) for each sample of a batch.

    The model runs up to the attention output projection of the deepest layer asked for; nothing
    after it is computed, the language-model head never.
    """

    def __init__(
        self,
        pretrained: str,
        layers: list[int],
        attention_output: str | None = None,
        dtype: DType = "float32",
        attention: str = "sdpa",
    ) -> None:
        """Checks that there is a checkpoint; it is loaded when a step needs it.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub.
            layers: decoder layers to read, counted from 0 (the paper: 3, 7, 11, 15, 19 of 24).
            attention_output: path of the attention output projection within a decoder layer, such
                as `self_attn.o_proj`, for a model in which it is not found by itself.
            dtype: in which the weights are held and the forward pass runs.
            attention: attention implementation of transformers.
        """
        super().__init__()
        check_directory(pretrained, "config.json")
        self.pretrained = pretrained
        self.attention_output = attention_output
        self.weights: DType = dtype
        self.attention = attention
        self.layers = list(layers)
        self.processor: ProcessorMixin = load_processor(pretrained)
        self.model: PreTrainedModel | None = None

    def configure_model(self) -> None:
        """Loads the checkpoint."""
        if self.model is None:
            self.model = load_model(
                self.pretrained, dtype=self.weights, attention=self.attention
            ).eval()
            self.projections = attention_outputs(self.model, self.layers, self.attention_output)

    @property
    def fingerprint(self) -> str:
        """Digest of the checkpoint that the signals come from."""
        return checkpoint_fingerprint(self.pretrained)

    @property
    def signals(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape of one row and dtype of each signal, by name."""
        self.configure_model()
        assert self.model is not None
        hidden = self.model.config.get_text_config().hidden_size
        return {"activations": ((2 * len(self.layers) * hidden,), "float16")}

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """One row per sample and signal.

        Returns:
            `activations`: float16 [B, 2 * layers * hidden], see `activations`.
        """
        assert self.model is not None
        outputs = attention_projections(self.model, self.projections, batch)
        return {"activations": activations(outputs, batch.image_mask, batch.text_mask)}


def activations(outputs: Sequence[Tensor], image_mask: Tensor, text_mask: Tensor) -> Tensor:
    """COINCIDE's features of a batch: method section 3.1 of arXiv 2406.10995.

    For each layer, the output of the attention block's output projection is averaged over the image
    tokens and over the text tokens after the image; each mean v becomes tanh(v) / ‖tanh(v)‖. The
    2M vectors stand side by side, [visual, text] per layer, divided by sqrt(2M): a row has norm 1,
    or sqrt(1/2) where one modality is missing, whose half is zero.

    Args:
        outputs: M tensors [B, T, H], one per layer.
        image_mask: bool [B, T], true at image tokens.
        text_mask: bool [B, T], true at text tokens after the image.

    Returns:
        float16 [B, 2 * M * H].
    """
    masks = torch.stack([image_mask, text_mask], 1).float()  # [B, 2, T]
    weights = masks / masks.sum(2, keepdim=True).clamp(min=1)
    means = [weights @ output.float() for output in outputs]  # M × [B, 2, H]
    rows = F.normalize(torch.stack(means, 1).tanh(), dim=-1)  # [B, M, 2, H]
    return (rows.flatten(1) / math.sqrt(2 * len(outputs))).half()


class _Reached(Exception):
    """The deepest module asked for has run."""


def attention_projections(
    model: PreTrainedModel, projections: Sequence[nn.Module], batch: Batch
) -> list[Tensor]:
    """Run a model up to the deepest of some modules.

    Args:
        model: an image-text-to-text model.
        projections: modules of its decoder, in any order, each run once in a forward pass.
        batch: what the model reads.

    Returns:
        The output [B, T, H] of each module.
    """
    outputs: dict[nn.Module, Tensor] = {}

    def keep(module: nn.Module, _: Any, output: Tensor) -> None:
        outputs[module] = output
        if len(outputs) == len(projections):
            raise _Reached

    hooks = [module.register_forward_hook(keep) for module in projections]
    try:
        with torch.inference_mode(), shared_images(model, batch.image_index, batch.num_images):
            model(**model_inputs(batch), use_cache=False)
    except _Reached:
        pass
    finally:
        for hook in hooks:
            hook.remove()
    return [outputs[module] for module in projections]
