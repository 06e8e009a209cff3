"""Gradients as a module of `predict`: of each sample's loss, by a warm-up's LoRA adapters."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import ProcessorMixin

from coincide_pl.data.collation import Batch
from coincide_pl.data.encoding import IGNORE
from coincide_pl.data.served import served
from coincide_pl.errors import ModelError
from coincide_pl.models.loading import DType, check_directory, checkpoint_fingerprint
from coincide_pl.models.parts import check_parts, meant
from coincide_pl.models.per_sample import adapters, per_sample
from coincide_pl.models.processors import load_processor
from coincide_pl.models.projection import Projection
from coincide_pl.models.warm_up import Moments, WarmUp
from coincide_pl.processes import on_first_process
from coincide_pl.signals.choosing import chosen
from coincide_pl.signals.forward import Forward, GradientRead, ModelFacts, Needs, union
from coincide_pl.signals.gradients import Task
from coincide_pl.signals.signal import Signal, making
from coincide_pl.signals.writer import writers


class GradientModule(lightning.LightningModule):
    """Gives each sample's gradient by the adapters that a fit with LoRA has trained, projected.

    The loss of a sample is the mean over its answer tokens. Gradients come from one forward and one
    backward pass of a batch, and only one weight's are held at a time; see `per_sample`. Selectors
    for given tasks read them of the training data and, from a second store, of the tasks' data.
    """

    def __init__(
        self,
        pretrained: str,
        warm_up: str,
        signals: list[str | Signal] | None = None,
        gradient_checkpointing: bool = False,
        parts: dict[str, str] | None = None,
        dtype: DType = "float32",
        attn_implementation: str = "sdpa",
    ) -> None:
        """Checks that there are checkpoints; they are loaded when a step needs them.

        Args:
            pretrained: checkpoint that the warm-up began with: a directory, or a name on the
                Hugging Face hub.
            warm_up: directory of the run of a fit with LoRA (LESS and ICONS: on a random 5 % of the
                data; TIVE: on 8 %, as many of each source), or one of its training checkpoints.
            signals: what to write: short names (gradient, adam_gradient, gradient_norm), class
                names, or class_path and init_args (default: gradient, gradient_norm). The number of
                each record's source, `task`, comes with them.
            gradient_checkpointing: whether activations are computed again in the backward pass, to
                save memory.
            parts: paths of parts that are not found by themselves, as the warm-up had them.
            dtype: floating-point type of the weights that the warm-up left as they were.
            attn_implementation: how attention is computed, by transformers' name, such as `sdpa`
                or `flash_attention_2`.

        Raises:
            ModelError: there is no checkpoint, or no training checkpoint of a warm-up.
            SignalsError: no signals, a signal twice, or one that needs another model.
        """
        super().__init__()
        check_directory(pretrained, "config.json")
        self.asked = chosen(["gradient", "gradient_norm"] if signals is None else signals)
        for signal in self.asked:
            if signal.needs != Needs(gradients=signal.needs.gradients):
                raise ModelError(
                    f"signals: a gradient pass does not make {signal.name}: "
                    f"{making([type(signal)])}"
                )
        self.needs = union(signal.needs for signal in self.asked)
        self.pretrained, self.warm_up = pretrained, WarmUp(warm_up)
        self.gradient_checkpointing = gradient_checkpointing
        self.parts = parts or {}
        check_parts(self.parts)
        self.weights_dtype: DType = dtype
        self.attn_implementation = attn_implementation
        self.processor: ProcessorMixin = load_processor(pretrained)
        self.model: lightning.LightningModule | None = None
        self.moments: Moments | None = None
        self.facts = ModelFacts()  # no row's shape depends on the model

    @cached_property
    def signals(self) -> list[Signal]:
        """What is asked for, and the number of each record's source."""
        return [*self.asked, Task(served(self.trainer).records.source_names)]

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the checkpoint and of the warm-up's."""
        began = checkpoint_fingerprint(self.pretrained)
        return on_first_process(lambda: self.warm_up.digest(began))

    @property
    def settings(self) -> dict[str, Any]:
        """What the rows, and the weight of their checkpoint, depend on beside the models."""
        return {
            "dtype": self.weights_dtype,
            "attn_implementation": self.attn_implementation,
            "parts": self.parts,
            "learning_rate": self.warm_up.learning_rate,
        }

    def configure_callbacks(self) -> list[lightning.Callback]:
        """Writes signals wherever `data.signals` says so, with a plain Trainer too."""
        return writers(self.trainer)

    def setup(self, stage: str) -> None:
        """Has the trainer predict in a mode in which a step can ask for gradients."""
        self.trainer.predict_loop.inference_mode = False

    def configure_model(self) -> None:
        """Loads the model with the adapters that the warm-up trained.

        Raises:
            ModelError: a signal needs what the warm-up has not got.
        """
        if self.model is not None:
            return
        self.model, self.moments = self.warm_up.module(
            self.pretrained,
            self.gradient_checkpointing,
            self.parts,
            self.weights_dtype,
            self.attn_implementation,
        )
        self.adapters = adapters(self.model)
        targets = {part.target for part in self.adapters}
        for read in self.needs.gradients:
            for name in read.target_modules:
                if name not in targets:
                    raise ModelError(
                        f"target_modules: no adapter of the warm-up is on {name!r}"
                        f"{meant(name, targets)}; there are {', '.join(sorted(targets))}"
                    )
            if read.adam and self.moments is None:
                raise ModelError(
                    f"{self.warm_up.path}: its optimizer keeps no moments as Adam does, which "
                    "adam_gradient needs: fit with Adam or AdamW, or write gradient alone"
                )
        sizes = {(read.size, read.seed) for read in self.needs.gradients}
        self.projections = {key: Projection(key[0], key[1]) for key in sizes if key[0] is not None}

    def on_predict_model_eval(self) -> None:
        """Leaves the layers in the modes that they have, which keep activations or not."""

    def predict_step(self, batch: Batch, batch_idx: int = 0) -> dict[str, Tensor]:
        """The rows of a batch [B, ...] of each signal, by name."""
        forward = Forward(batch, gradients=self.gradients(batch))
        return {signal.name: signal.rows(forward) for signal in self.signals}

    def gradients(self, batch: Batch) -> dict[GradientRead, Tensor]:
        """What the signals need of the gradients of a batch, by what is read of them."""
        assert self.model is not None
        rows, device = len(batch.rows), batch.input_ids.device
        found = {
            read: torch.zeros((rows, read.size) if read.size else rows, device=device)
            for read in self.needs.gradients
        }
        left = set(range(len(self.adapters)))

        def keep(number: int, gradients: Tensor) -> None:
            left.remove(number)
            part = self.adapters[number]
            for read, so_far in found.items():
                if read.target_modules and part.target not in read.target_modules:
                    continue
                values = gradients
                if read.adam and self.moments is not None:
                    values = self.moments.step(part.module.weight, gradients)
                if read.size is None:
                    so_far += values.square().sum(1)
                else:
                    so_far += self.projections[read.size, read.seed](number, values)

        answers = (batch.labels[:, 1:] != IGNORE).sum(1)  # [B]
        with torch.enable_grad(), per_sample(self.adapters, keep):
            logits, targets = self.model(batch)  # of all answer tokens, row by row
            losses = F.cross_entropy(logits, targets, reduction="none")  # [L]
            of_row = torch.arange(rows, device=device).repeat_interleave(answers)
            (losses / answers[of_row]).sum().backward()
        for number in sorted(left):  # what no answer depends on
            weight = self.adapters[number].module.weight
            keep(number, weight.new_zeros((rows, weight.numel()), dtype=torch.float32))
        empty = answers == 0
        return {
            read: (value if read.size else value.sqrt()).masked_fill(
                empty.view(-1, *[1] * (value.ndim - 1)), 0
            )
            for read, value in found.items()
        }
