"""The reference model: reads every sample once, and gives what selectors choose by."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import ProcessorMixin

from coincide_pl.data.collation import Batch
from coincide_pl.data.rewriting import Rewriting
from coincide_pl.models.forward_pass import ForwardPass, model_facts
from coincide_pl.models.loading import DType, load_model
from coincide_pl.models.parts import check_parts
from coincide_pl.models.processors import load_processor
from coincide_pl.models.signals_module import SignalsModule
from coincide_pl.signals.choosing import chosen
from coincide_pl.signals.forward import ModelFacts, Needs, union
from coincide_pl.signals.signal import Signal


class ReferenceModule(SignalsModule):
    """Gives per-sample signals of a batch, as many as are asked for in one forward pass.

    What is computed is what the signals need together; see `ForwardPass`.
    """

    about = "a reference model"

    def __init__(
        self,
        pretrained: str,
        layers: list[int] | None = None,
        signals: list[str | Signal] | None = None,
        parts: dict[str, str] | None = None,
        dtype: DType = "float32",
        attn_implementation: str = "sdpa",
    ) -> None:
        """Checks that there is a checkpoint; it is loaded when a step needs it.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub.
            layers: decoder layers that signals given by a name read, counted from 0 (the paper: 3,
                7, 11, 15, 19 of 24).
            signals: what to write: short names (activations, el2n, nll, margin, last_token,
                mean_token), class names, or class_path and init_args (default: activations).
            parts: paths of modules that are not found by themselves: `decoder_layers` (their list),
                and within a decoder layer `attention_output` (such as `self_attn.o_proj`),
                `mlp_output`, `mlp_activation` (its down projection) and `attention_weights` (the
                attention block).
            dtype: in which the weights are held and the forward pass runs.
            attn_implementation: attention implementation of transformers.

        Raises:
            ModelError: no checkpoint, or a part that nothing is known by.
            SignalsError: no signals, a signal twice, or one that needs another model or layers.
        """
        asked = chosen(["activations"] if signals is None else signals, layers or ())
        super().__init__(pretrained, asked, dtype, attn_implementation, parts=parts or {})
        self.parts = parts or {}
        check_parts(self.parts)
        self.needs = union(signal.needs for signal in asked)
        self.processor: ProcessorMixin = load_processor(pretrained)

    def makes(self, needs: Needs) -> bool:
        """Whether a signal needs nothing but forward passes of a language model with images."""
        return not (needs.embeddings or needs.scores or needs.gradients or needs.vision)

    def configure_model(self) -> None:
        """Loads the checkpoint."""
        if self.model is None:
            self.model = load_model(
                self.pretrained,
                dtype=self.weights_dtype,
                attn_implementation=self.attn_implementation,
            ).eval()
            self.forward_pass = ForwardPass(
                self.model, self.needs, self.parts, self.processor.tokenizer
            )

    @property
    def facts(self) -> ModelFacts:
        """Sizes of the model, which the shapes of signals depend on."""
        self.configure_model()
        assert self.model is not None
        return model_facts(self.model)

    @property
    def rewritings(self) -> tuple[Rewriting, ...]:
        """Other forms of their conversations that batches are to hold, too."""
        return tuple(self.needs.passes)

    @torch.inference_mode()
    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """The rows of a batch [B, ...] of each signal, by name."""
        forward = self.forward_pass(batch)
        return {signal.name: signal.rows(forward) for signal in self.signals}
