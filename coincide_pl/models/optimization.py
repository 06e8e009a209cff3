"""The schedule, and which parameters learn how fast."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from coincide_pl.errors import ModelError
from coincide_pl.models.parts import parameters

ParameterGroup = dict[str, Any]
"""What an optimizer of torch takes: `params`, and options of their own such as `lr`."""


class CosineWithWarmup(LRScheduler):
    """Learning rate linearly up from 0, then down a half cosine; steps with the optimizer."""

    def __init__(
        self, optimizer: Optimizer, warmup_ratio: float = 0.03, min_lr_ratio: float = 0.0
    ) -> None:
        """Begins at the first step of a run whose length `span` will say.

        Args:
            optimizer: whose learning rates are scaled.
            warmup_ratio: share of the run's steps on the way up.
            min_lr_ratio: share of the learning rate that is left at the end.

        Raises:
            ModelError: a share outside [0, 1].
        """
        for name, share in (("warmup_ratio", warmup_ratio), ("min_lr_ratio", min_lr_ratio)):
            if not 0 <= share <= 1:
                raise ModelError(f"{name}: {share} is outside [0, 1]")
        self.warmup_ratio, self.min_lr_ratio = warmup_ratio, min_lr_ratio
        self.total_steps: int | None = None
        super().__init__(optimizer)

    def span(self, total_steps: int) -> None:
        """Sets the run's length, in optimizer steps, and the learning rates of the first."""
        self.total_steps = total_steps
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            group["lr"] = rate

    def get_lr(self) -> list[float | Tensor]:
        """The learning rate of each parameter group at this step."""
        total = self.total_steps or 1
        rise = math.ceil(self.warmup_ratio * total)
        if self.last_epoch < rise:
            share = (self.last_epoch + 1) / rise
        else:
            progress = min(1.0, (self.last_epoch - rise) / max(1, total - rise))
            share = (
                self.min_lr_ratio + (1 - self.min_lr_ratio) * (1 + math.cos(math.pi * progress)) / 2
            )
        return [base * share for base in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The step reached, for a training checkpoint; each run says its own length."""
        return {k: v for k, v in super().state_dict().items() if k != "total_steps"}


def parameter_groups(
    model: nn.Module, rates: Mapping[str, float], parts: Mapping[str, str] | None = None
) -> list[ParameterGroup]:
    """The parameters to train: one group for each part with a learning rate of its own, and a rest.

    Args:
        model: an image-text-to-text model.
        rates: learning rates by part.
        parts: paths of parts, see `parts.modules`.

    Raises:
        ModelError: nothing to train, or a part without anything to train.
    """
    left = {id(p): p for p in model.parameters() if p.requires_grad}
    if not left:
        raise ModelError("freeze: nothing is left to train")
    groups: list[ParameterGroup] = []
    for name, rate in rates.items():
        own = [p for p in parameters(model, name, parts) if id(p) in left]
        if not own:
            raise ModelError(
                f"learning_rates: nothing of {name!r} is trained: it is frozen, or has a learning "
                "rate by another name"
            )
        groups.append({"params": own, "lr": rate})
        for parameter in own:
            del left[id(parameter)]
    return [{"params": list(left.values())}, *groups] if left else groups
