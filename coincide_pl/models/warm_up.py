"""What a fit with LoRA leaves in its training checkpoint: adapters, and the moments of Adam."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers.modeling_layers import GradientCheckpointingLayer

from coincide_pl.errors import ModelError
from coincide_pl.models.checkpoint import EpochCheckpoints
from coincide_pl.models.loading import DType, checkpoint_fingerprint, first_line
from coincide_pl.models.lora import LoRA
from coincide_pl.models.target import TargetModule

RECIPE = (
    "model.pretrained (its digest)",
    "model.freeze",
    "model.learning_rates",
    "model.lora",
)
"""What of a fit's recipe its parameters depend on."""


@dataclass(frozen=True)
class Moments:
    """What Adam's optimizer has reached.

    Attributes:
        of: first and second moment of each parameter by its id, float32, of the parameter's shape.
        betas: β₁ and β₂, how much of the moments a step keeps.
        epsilon: ε.
    """

    of: dict[int, tuple[Tensor, Tensor]]
    betas: tuple[float, float]
    epsilon: float

    def step(self, parameter: Tensor, gradients: Tensor) -> Tensor:
        """Γ of `AdamGradient`, of each sample.

        Args:
            parameter: whose moments are meant.
            gradients: float32 [B, n].

        Returns:
            float32 [B, n].
        """
        never = (torch.zeros_like(parameter, dtype=torch.float32),) * 2
        kept = self.of.get(id(parameter), never)
        first, second = (moment.to(gradients.device) for moment in kept)
        self.of[id(parameter)] = first, second  # moved once
        mean, square = self.betas
        m = mean * first.flatten() + (1 - mean) * gradients
        v = square * second.flatten() + (1 - square) * gradients.square()
        return m / (v + self.epsilon).sqrt()


class WarmUp:
    """A training checkpoint of a fit with LoRA."""

    def __init__(self, path: str) -> None:
        """Finds the file; it is read when it is needed.

        Args:
            path: the checkpoint, or the directory of the fit's run, for that of its last epoch.

        Raises:
            ModelError: there is none.
        """
        self.path = Path(path)
        if self.path.is_dir():
            kept = [*(self.path / "checkpoints").glob("*.ckpt")]
            self.path = max(kept, key=_age, default=self.path)
        if not self.path.is_file():
            raise ModelError(
                f"model.warm_up: {path}: no training checkpoint here; `coincide fit --config "
                "models/target_lora --config trainers/warm_up --trainer.max_epochs=4` leaves some "
                "in its run"
            )

    @cached_property
    def _kept(self) -> dict[str, Any]:
        """What the file holds, memory-mapped."""
        try:
            kept: dict[str, Any] = torch.load(
                self.path, map_location="cpu", weights_only=True, mmap=True
            )
            recipe = {name: json.loads(value) for name, value in kept["recipe"].items()}
            kept["recipe"] = {name: recipe[name] for name in RECIPE}
            for name in ("state_dict", "optimizer_states", "callbacks"):
                kept[name]  # must be there
        except Exception as error:  # torch raises many kinds
            raise ModelError(
                f"{self.path}: not a training checkpoint of a fit ({first_line(error)})"
            ) from error
        return kept

    @property
    def learning_rate(self) -> float | None:
        """The mean of its epoch, where `EpochCheckpoints` wrote it."""
        own = self._kept["callbacks"].get(EpochCheckpoints.__qualname__)
        return own["rates"] / own["steps"] if own and own["steps"] else None

    def digest(self, began: str) -> str:
        """A digest of the file and of what the fit began with, 32 hexadecimal digits."""
        with self.path.open("rb") as file:
            found = hashlib.file_digest(
                file, lambda: hashlib.blake2b(began.encode(), digest_size=16)
            )
        return found.hexdigest()

    def module(
        self,
        pretrained: str,
        gradient_checkpointing: bool,
        parts: dict[str, str],
        dtype: DType,
        attn_implementation: str,
    ) -> tuple[TargetModule, Moments | None]:
        """The model as the fit left it, in evaluation mode, and the moments of its optimizer.

        Args:
            pretrained: the checkpoint that the fit began with.
            gradient_checkpointing: whether layers keep no activations for the backward pass.
            parts: see `TargetModule`.
            dtype: of the weights that the fit did not train.
            attn_implementation: see `TargetModule`.

        Returns:
            Nothing of it requires gradients. There are no moments if the fit was not by Adam.

        Raises:
            ModelError: the file is no such checkpoint, or the fit began with another model, or was
                without LoRA.
        """
        recipe, state = self._kept["recipe"], self._kept["state_dict"]
        lora = recipe["model.lora"]
        if lora is None:
            raise ModelError(
                f"{self.path}: of a fit without LoRA, and gradients are of its adapters: fit with "
                "--config models/target_lora"
            )
        if recipe["model.pretrained (its digest)"] != checkpoint_fingerprint(pretrained):
            raise ModelError(
                f"{self.path}: of a fit that began with another model than {pretrained}; "
                "name that one in model.pretrained"
            )
        target = TargetModule(
            pretrained,
            freeze=recipe["model.freeze"],
            learning_rates=recipe["model.learning_rates"],
            lora=LoRA(**lora),
            gradient_checkpointing=gradient_checkpointing,
            parts=parts,
            dtype=dtype,
            attn_implementation=attn_implementation,
        )
        target.configure_model()
        target.check_state(state)
        moments = _moments(self._kept["optimizer_states"][0], target.parameter_groups())
        for name, parameter in target.named_parameters():
            if name in state:
                parameter.data = state[name].clone()  # in the type in which it was trained
        target.load_state_dict(state, strict=False)  # what is no parameter
        target.eval().requires_grad_(False)
        for layer in target.modules():  # they keep nothing in training mode alone
            if isinstance(layer, GradientCheckpointingLayer):
                layer.training = True  # its own, so that nothing within it drops anything out
        return target, moments


def _age(path: Path) -> tuple[int, float]:
    """By what a run's checkpoints come after another: those of epochs last, by their number."""
    kind, _, number = path.stem.rpartition("-")
    return (int(number) if kind == "epoch" and number.isdigit() else -1, path.stat().st_mtime)


def _moments(optimizer: dict[str, Any], groups: list[dict[str, Any]]) -> Moments | None:
    """The state of an optimizer by parameter: both have the parameters in the same order."""
    numbers = [number for group in optimizer["param_groups"] for number in group["params"]]
    trained = [parameter for group in groups for parameter in group["params"]]
    found = {}
    for number, parameter in zip(numbers, trained, strict=True):
        own = optimizer["state"].get(number, {})  # empty where no gradient ever came
        if "exp_avg" in own and "exp_avg_sq" in own:
            found[id(parameter)] = (own["exp_avg"].float(), own["exp_avg_sq"].float())
    first = optimizer["param_groups"][0]
    return Moments(found, tuple(first["betas"]), first["eps"]) if found else None
