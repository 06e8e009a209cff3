"""The target model: finetunes any image-text-to-text model, whole or with LoRA, and answers."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from typing import Any, Literal

import lightning
import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn import functional as F
from torch.optim.lr_scheduler import ReduceLROnPlateau
from torchmetrics import MeanMetric
from transformers import GenerationConfig, PreTrainedModel, ProcessorMixin

from coincide_pl.data.collation import Batch
from coincide_pl.errors import ModelError
from coincide_pl.models.images import blank, model_inputs, shared_images
from coincide_pl.models.loading import (
    DType,
    check_directory,
    checkpoint_fingerprint,
    listed,
    load_model,
)
from coincide_pl.models.logits import possible
from coincide_pl.models.lora import LoRA, add_lora, merge_lora
from coincide_pl.models.optimization import CosineWithWarmup, ParameterGroup, parameter_groups
from coincide_pl.models.parts import PARTS, check_parts, decoder_layers, modules, parameters
from coincide_pl.models.processors import load_processor
from coincide_pl.models.recipe import Recipe, check_same, optimizer_options, recipe
from coincide_pl.models.sharding import shard
from coincide_pl.processes import on_first_process


class TargetModule(lightning.LightningModule):
    """Visual instruction tuning: next-token loss on the assistant's turns.

    Trains the target and, being only a smaller model, the reference.
    """

    def __init__(
        self,
        pretrained: str,
        optimizer: OptimizerCallable = torch.optim.AdamW,
        scheduler: LRSchedulerCallable = CosineWithWarmup,
        freeze: list[str] | None = None,
        learning_rates: dict[str, float] | None = None,
        lora: LoRA | None = None,
        gradient_checkpointing: bool = False,
        compile_layers: bool = False,
        parts: dict[str, str] | None = None,
        loss_average: Literal["step", "batch"] = "step",
        max_new_tokens: int = 32,
        dtype: DType = "float32",
        attn_implementation: str = "sdpa",
    ) -> None:
        """Checks that there is a checkpoint; it is loaded when a step needs it.

        Args:
            pretrained: checkpoint directory, or a name on the Hugging Face hub.
            optimizer: the optimizer's class and arguments, such as its learning rate.
            scheduler: the learning-rate schedule's class and arguments; it steps when the optimizer
                does.
            freeze: parts that are not trained: `vision_tower`, `projector`, `language_model`, or
                paths of submodules.
            learning_rates: learning rates of parts that have one of their own, by the same names.
            lora: sizes of adapters that are trained in place of the language model's weights.
            gradient_checkpointing: whether activations are computed again in the backward pass, to
                save memory.
            compile_layers: whether each decoder layer is compiled with `torch.compile`.
            parts: paths of parts that are not found by themselves, by the names `vision_tower`,
                `projector`, `language_model` and `decoder_layers`.
            loss_average: what the loss is a mean over: the labeled tokens of an optimizer step, in
                all its batches and processes, so that each token counts the same; or those of a
                batch, and then the batches and processes, whatever they hold.
            max_new_tokens: tokens of a generated answer at most.
            dtype: floating-point type in which the weights are held; mixed precision is
                `trainer.precision`.
            attn_implementation: how attention is computed, by transformers' name, such as `sdpa`
                or `flash_attention_2`.
        """
        super().__init__()
        check_directory(pretrained, "config.json")
        self.pretrained = pretrained
        self.optimizer, self.scheduler = optimizer, scheduler
        self.freeze_parts = freeze or []
        self.learning_rates = learning_rates or {}
        self.lora = lora
        self.gradient_checkpointing = gradient_checkpointing
        self.compile_layers = compile_layers
        self.parts = parts or {}
        check_parts(self.parts)
        self.loss_average = loss_average
        self._step: Tensor | None = None
        self.max_new_tokens = max_new_tokens
        self.weights_dtype: DType = dtype
        self.attn_implementation = attn_implementation
        self.strict_loading = False  # frozen weights are not in the training checkpoints
        self.processor: ProcessorMixin = load_processor(pretrained)
        self.model: PreTrainedModel | None = None
        self.train_accuracy, self.val_accuracy = MeanMetric(), MeanMetric()

    def configure_model(self) -> None:
        """Loads the checkpoint, freezes parts and adds adapters; shards it, if that is the way."""
        if self.model is None:
            self.model = self.prepared().train()  # it comes in evaluation mode
            if self._trainer is not None and str(self.trainer.precision).endswith("-mixed"):
                for parameter in self.model.parameters():
                    if parameter.requires_grad:  # small steps vanish in what half precision rounds
                        parameter.data = parameter.data.float()
            if self.compile_layers:
                for layer in decoder_layers(self.model, self.parts.get("decoder_layers")):
                    layer.compile()
            if self._trainer is not None and self._fabric is None:
                shard(self.trainer.strategy, self.model, self.parts.get("decoder_layers"))

    def prepared(self) -> PreTrainedModel:
        """The model as training begins with it: parts frozen, adapters added."""
        model = load_model(
            self.pretrained, dtype=self.weights_dtype, attn_implementation=self.attn_implementation
        )
        for name in self.parts.keys() & {*PARTS, "decoder_layers"}:
            modules(model, name, self.parts)  # a path that leads nowhere is a mistake
        for name in self.freeze_parts:
            frozen = parameters(model, name, self.parts)
            if not frozen:
                raise ModelError(f"freeze: {name!r} has no parameters")
            for parameter in frozen:
                parameter.requires_grad_(False)
        if self.lora is not None:
            add_lora(model, self.lora, self.parts)
        if self.gradient_checkpointing:
            new = getattr(model, "activation_checkpointing_enable", None)  # its newer name
            (new or model.gradient_checkpointing_enable)({"use_reentrant": False})
        self._keeps = "logits_to_keep" in inspect.signature(model.forward).parameters
        return model

    def setup(self, stage: str) -> None:
        """Has the first process read the checkpoint's digest for all, where a fit needs it."""
        if stage == "fit":
            self.fingerprint = on_first_process(lambda: self.fingerprint)

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the checkpoint that training starts from, before training replaces it."""
        return checkpoint_fingerprint(self.pretrained)

    def recipe(self) -> Recipe:
        """What of the module and the trainer a training's course depends on."""
        trainer = self.trainer
        return recipe(
            {
                "model": type(self).__qualname__,
                "model.pretrained (its digest)": self.fingerprint,
                "model.freeze": sorted(self.freeze_parts),
                "model.learning_rates": dict(sorted(self.learning_rates.items())),
                "model.lora": None if self.lora is None else asdict(self.lora),
                "model.loss_average": self.loss_average,
                "model.dtype": self.weights_dtype,
                "trainer.precision": trainer.precision,
                "trainer.gradient_clip_val": trainer.gradient_clip_val,
                "trainer.gradient_clip_algorithm": trainer.gradient_clip_algorithm,
                **optimizer_options(self.optimizer, self.scheduler, len(self.parameter_groups())),
            }
        )

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Parameter groups, optimizer and scheduler."""
        optimizer = self.optimizer(self.parameter_groups())
        scheduler = self.scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            raise ModelError("scheduler: ReduceLROnPlateau has no place in one pass over the data")
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "name": "lr"},
        }

    def parameter_groups(self) -> list[ParameterGroup]:
        """What the optimizer trains, by learning rate."""
        assert self.model is not None
        return parameter_groups(self.model, self.learning_rates, self.parts)

    def on_train_start(self) -> None:
        """Tells the schedule how long the run is.

        Not before: asking makes Lightning load the data, and data that are loaded before the
        checkpoint do not go on where they were.
        """
        for config in self.trainer.lr_scheduler_configs:
            if isinstance(config.scheduler, CosineWithWarmup):
                config.scheduler.span(int(self.trainer.estimated_stepping_batches))

    def forward(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Predict the tokens that are trained on.

        Returns:
            Logits float32 [L, vocabulary] and labels int64 [L] of all labeled tokens in the batch,
            row by row.
        """
        assert self.model is not None
        kept = {"logits_to_keep": batch.columns} if self._keeps else {}
        with shared_images(self.model, batch):
            logits = self.model(**model_inputs(self.model, batch), **kept, use_cache=False).logits
        if batch.blank_inputs:
            logits = logits + 0.0 * blank(self.model, batch.blank_inputs)
        if not self._keeps:
            logits = logits[:, batch.columns]
        logits = logits.flatten(0, 1)[batch.labeled]
        return possible(logits.float(), self.model), batch.targets

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Cross-entropy, so scaled that each labeled token has the same share in the step."""
        logits, labels = self(batch)
        if not logits.requires_grad:  # text alone, where the projector alone is trained
            logits = logits + 0.0 * sum(p.sum() for p in self.parameters() if p.requires_grad)
        total = F.cross_entropy(logits, labels, reduction="sum")
        loss = total / max(1, len(labels))
        self.train_accuracy(logits.detach().argmax(-1) == labels)
        rows = len(batch.rows)
        self.log("train/loss", loss.detach(), prog_bar=True, batch_size=rows)
        self.log("train/token_accuracy", self.train_accuracy, prog_bar=True, batch_size=rows)
        if self.loss_average == "batch":
            return loss
        # The trainer divides by the batches of a step, the strategy by the processes.
        batches = self.trainer.accumulate_grad_batches * self.trainer.world_size
        return total * batches / self._step_targets(batch, batch_idx)

    def _step_targets(self, batch: Batch, batch_idx: int) -> int | Tensor:
        """The labeled tokens of an optimizer step, of all its batches and processes; at least 1."""
        own = len(batch.targets) if batch.step_targets is None else batch.step_targets
        if self.trainer.world_size == 1:
            return max(1, own)
        if batch_idx % self.trainer.accumulate_grad_batches == 0 or self._step is None:
            count = torch.tensor(own, device=self.device)
            self._step = self.trainer.strategy.reduce(count, reduce_op="sum").clamp(min=1)
        return self._step

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Loss per labeled token, and token accuracy."""
        logits, labels = self(batch)
        if not len(labels):
            return
        self.val_accuracy(logits.argmax(-1) == labels)
        loss = F.cross_entropy(logits, labels)
        self.log("val/loss", loss, prog_bar=True, batch_size=len(labels), sync_dist=True)
        self.log("val/token_accuracy", self.val_accuracy, prog_bar=True, batch_size=len(labels))

    def test_step(self, batch: Batch, batch_idx: int) -> dict[str, list[str]]:
        """Generates answers greedily.

        Args:
            batch: prompts, padded on the left.
            batch_idx: its number.

        Returns:
            `answers`: [B], stripped.
        """
        model: Any = self.model
        tokenizer = self.processor.tokenizer
        settings = GenerationConfig.from_dict(
            {
                **model.generation_config.to_dict(),
                "do_sample": False,
                "num_beams": 1,
                "temperature": None,
                "top_p": None,
                "top_k": None,
                "max_length": None,
                "max_new_tokens": self.max_new_tokens,
            }
        )
        if settings.pad_token_id is None:
            settings.pad_token_id = tokenizer.pad_token_id or tokenizer.eos_token_id
        with shared_images(model, batch):
            tokens = model.generate(**model_inputs(model, batch), generation_config=settings)
        new = tokens[:, batch.input_ids.shape[1] :]
        texts = tokenizer.batch_decode(new, skip_special_tokens=True)
        return {"answers": [text.strip() for text in texts]}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Notes the recipe, and leaves frozen weights out: they are where training starts from."""
        everything = self.named_parameters(remove_duplicate=False)  # tied ones by all their names
        frozen = {name for name, p in everything if not p.requires_grad}
        state = checkpoint["state_dict"]
        checkpoint["state_dict"] = {k: v for k, v in state.items() if k not in frozen}
        if self._trainer is not None:
            checkpoint["recipe"] = self.recipe()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses to go on with a fit by another recipe, or with some weights only.

        Raises:
            ConfigError: the fit began with other options.
            ModelError: the checkpoint lacks weights that are trained, or has others.
        """
        if self.trainer.state.fn == TrainerFn.FITTING:
            root = self.trainer.default_root_dir
            check_same(root, checkpoint.get("recipe", {}), self.recipe())
        if (
            state := checkpoint.get("state_dict")
        ) is not None:  # some strategies load it themselves
            self.check_state(state)

    def check_state(self, state: Mapping[str, Tensor]) -> None:
        """Refuses a training checkpoint's weights unless they are all that this module trains.

        Raises:
            ModelError: naming some that are missing, or that the module does not have.
        """
        wanted = {name for name, p in self.named_parameters() if p.requires_grad}
        if missing := sorted(wanted - set(state)):
            raise ModelError(f"the training checkpoint lacks {listed(missing)}")
        if unknown := sorted(set(state) - set(self.state_dict())):
            raise ModelError(
                f"the training checkpoint holds {listed(unknown)}, which the model does not have"
            )

    def merge(self, state: dict[str, Tensor] | None = None) -> PreTrainedModel:
        """The trained model, adapters folded in; training can't go on after this.

        Args:
            state: what was trained, by name, where the model itself lies in pieces.
        """
        model = self.model
        if state is not None:
            model = self.prepared()
            inner = {k.removeprefix("model."): v for k, v in state.items()}
            model.load_state_dict(inner, strict=False)
        assert model is not None
        if self.lora is not None:
            merge_lora(model)
        return model
