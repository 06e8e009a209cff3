"""What training on a sample would change: gradients of its loss by LoRA weights, projected."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from coincide_pl.errors import SignalsError
from coincide_pl.signals.forward import Forward, GradientRead, ModelFacts, Needs
from coincide_pl.signals.signal import Signal, StoredAs

COMMAND = "coincide predict --config models/gradients --model.signals='[{}]'"


class Gradient(Signal):
    """The direction of a sample's gradient: of norm 1; zeros where there is no answer token.

    It is the gradient of the mean loss of the sample's answer tokens by the weights of the LoRA
    adapters, after a random projection that keeps inner products; see `Projection`.
    """

    name = "gradient"
    dtype: StoredAs = "float16"
    made_by: ClassVar[str] = COMMAND
    adam: ClassVar[bool] = False

    def __init__(
        self,
        size: int = 8192,
        seed: int = 0,
        target_modules: list[str] | None = None,
        name: str | None = None,
    ) -> None:
        """Checks the size.

        Args:
            size: d, width of the projection (LESS and TIVE: 8192; ICONS: 5120).
            seed: seed of the projection; gradients that are compared need the same.
            target_modules: last names of the linear layers whose adapters count, such as `q_proj`
                (default: all that have one; TIVE: the four of the attention).
            name: of the array in the store.

        Raises:
            SignalsError: a size that is not positive, or no names.
        """
        if size < 1:
            raise SignalsError(f"size: {size} must be positive")
        _check(target_modules)
        self.size, self.seed, self.target_modules = size, seed, target_modules
        self.name = name or type(self).name

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """As many numbers as the projection gives."""
        return (self.size,)

    @property
    def read(self) -> GradientRead:
        """What it reads of a sample's gradient."""
        return GradientRead(tuple(self.target_modules or ()), self.adam, self.size, self.seed)

    @property
    def needs(self) -> Needs:
        """The projected gradients."""
        return Needs(gradients={self.read})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B, d]."""
        return F.normalize(forward.gradient(self.read), dim=1)


class AdamGradient(Gradient):
    """The direction in which a step of Adam on a sample alone would go; see `Gradient`.

    Γ of LESS (Xia et al., ICML 2024, arXiv 2402.04333, section 3.1): with g a sample's gradient,
    and m and v the moments that the warm-up's optimizer had reached,

        Γ = (β₁ m + (1 - β₁) g) / √(β₂ v + (1 - β₂) g² + ε)

    where ε stands under the root, as in the authors' code. The paper divides both moments by
    1 - βᵗ; that scales all rows alike, and they have norm 1 here.
    """

    name = "adam_gradient"
    adam: ClassVar[bool] = True


class GradientNorm(Signal):
    """The norm of a sample's gradient before any projection; see `Gradient`."""

    name = "gradient_norm"
    made_by: ClassVar[str] = COMMAND

    def __init__(self, target_modules: list[str] | None = None, name: str | None = None) -> None:
        """Checks the names.

        Args:
            target_modules: last names of the linear layers whose adapters count, such as `q_proj`
                (default: all that have one; TIVE: the four of the attention).
            name: of the array in the store.

        Raises:
            SignalsError: no names.
        """
        _check(target_modules)
        self.target_modules = target_modules
        self.name = name or type(self).name

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def needs(self) -> Needs:
        """The norms."""
        return Needs(gradients={GradientRead(tuple(self.target_modules or ()))})

    def rows(self, forward: Forward) -> Tensor:
        """float32 [B]."""
        return forward.gradient(GradientRead(tuple(self.target_modules or ())))


class Task(Signal):
    """The number of a sample's source among `names`; what is chosen for several tasks reads it."""

    name = "task"
    dtype: StoredAs = "int32"
    made_by: ClassVar[str] = COMMAND

    def __init__(self, names: list[str]) -> None:
        """Keeps the names.

        Args:
            names: of all sources of the data.
        """
        self.names = names
        self._numbers = {name: number for number, name in enumerate(names)}

    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """A number."""
        return ()

    @property
    def needs(self) -> Needs:
        """The batch alone."""
        return Needs()

    def rows(self, forward: Forward) -> Tensor:
        """int32 [B]."""
        return torch.tensor([self._numbers[s] for s in forward.batch.sources], dtype=torch.int32)


def _check(target_modules: list[str] | None) -> None:
    """Refuses a list without a layer."""
    if target_modules is not None and not target_modules:
        raise SignalsError(
            "target_modules: name at least one, such as q_proj, or leave the option out"
        )
