"""What every signal is: a number or vector for each sample, from one pass of a model."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from coincide_pl.errors import SignalsError
from coincide_pl.signals.forward import Forward, ModelFacts, Needs

StoredAs = Literal["float16", "float32", "int32"]


class Signal(ABC):
    """A number or vector for each sample. A subclass keeps each argument under its name.

    Attributes:
        name: under which it is stored; the class has a default, and one whose arguments differ may
            take another from its constructor, so that two of a class can stand in one store.
        dtype: in which it is stored.
        made_by: the command that makes it, with `{}` where the signals are named; data and
            checkpoint come with it.
    """

    name: str
    dtype: StoredAs = "float32"
    made_by: ClassVar[str] = "coincide predict --config models/reference --model.signals='[{}]'"

    @abstractmethod
    def shape(self, model: ModelFacts) -> tuple[int, ...]:
        """Shape of one sample's row; () for a number."""

    @property
    @abstractmethod
    def needs(self) -> Needs:
        """What the pass must give it."""

    @abstractmethod
    def rows(self, forward: Forward) -> Tensor:
        """One row for each sample of a batch, [B, ...]."""

    @property
    def arguments(self) -> dict[str, Any]:
        """The constructor's arguments but the name; what the rows depend on, beside the model.

        Raises:
            SignalsError: an argument is not kept.
        """
        names = [n for n in inspect.signature(type(self)).parameters if n != "name"]
        for name in names:
            if not hasattr(self, name):
                raise SignalsError(
                    f"{class_path(type(self))}: its argument {name!r} must be kept in self.{name}"
                )
        return {name: getattr(self, name) for name in names}


def check_class(signal: type[Signal]) -> None:
    """Refuses a class that lacks a part of a signal, and names the part.

    Raises:
        SignalsError: it has no name, or a method is missing.
    """
    lacking = sorted(signal.__abstractmethods__) + ["name"] * (not hasattr(signal, "name"))
    if lacking:
        raise SignalsError(
            f"{class_path(signal)} is no signal yet: it has no {' and no '.join(lacking)} "
            "(coincide_pl/README.md: a signal of your own)"
        )


def class_path(signal: type[Signal]) -> str:
    """The import path of a signal's class."""
    return f"{signal.__module__}.{signal.__qualname__}"


def spelling(signal: type[Signal]) -> str:
    """What names a signal's class in `model.signals`: a short name, or the path of one's own."""
    return signal.name if signal.__module__.startswith("coincide_pl.") else class_path(signal)


def making(signals: Sequence[type[Signal]]) -> str:
    """How to make signals: a sentence with the commands.

    Args:
        signals: their classes, at least one.
    """
    by_command: dict[str, list[type[Signal]]] = {}
    for signal in signals:
        by_command.setdefault(signal.made_by, []).append(signal)
    return "; ".join(
        f"`{command.format(','.join(map(spelling, made)))}` makes {', '.join(s.name for s in made)}"
        for command, made in by_command.items()
    )
