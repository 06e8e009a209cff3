"""What every selector is: hyperparameters in the constructor, `select(pool, count)`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from coincide_pl.data.record import Record
from coincide_pl.errors import SelectionError
from coincide_pl.selection.cache import Cache, NoCache
from coincide_pl.selection.selection import Selection

REFERENCE = "coincide predict --config configs/models/reference.yaml --model.signals=[{}]"
CLIP = "coincide predict --config configs/models/clip.yaml"
MADE_BY = {
    "activations": REFERENCE,
    "el2n": REFERENCE,
    "nll": REFERENCE,
    "margin": REFERENCE,
    "last_token": REFERENCE,
    "mean_token": REFERENCE,
    "clip_image": CLIP,
    "clip_text": CLIP,
    "clip_score": CLIP,
    "difficulty": "coincide fit --config configs/models/self_filter.yaml",
}
"""The command that makes each signal; the data and the checkpoint come with it."""


@dataclass(frozen=True)
class Pool:
    """What is chosen from.

    Attributes:
        records: the samples.
        signals: per-sample arrays [N, ...] by name, rows in record order.
        fingerprints: of the data, of the signals, and so on.
        num_layers: M, how many layers the activations hold, if there are activations.
        cache: where a selector may keep what it would compute again for another fraction.
        device: where it may compute, such as `cuda:0`.
    """

    records: Sequence[Record]
    signals: Mapping[str, np.ndarray] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    num_layers: int | None = None
    cache: Cache = field(default_factory=NoCache)
    device: str = "cpu"

    def __len__(self) -> int:
        return len(self.records)


@dataclass(frozen=True)
class Picks:
    """What a selector gives.

    Attributes:
        indices: int64 [count], rows of the pool in order of picking.
        clusters: columns of per-cluster figures [K] by name, where there are clusters.
        figures: what else is worth knowing of how it went, by name.
        labels: int [N], the cluster of each row, where there are clusters.
    """

    indices: np.ndarray
    clusters: dict[str, np.ndarray] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    labels: np.ndarray | None = None


class Selector(ABC):
    """A way to choose. A subclass keeps each constructor argument in an attribute of its name."""

    signals: ClassVar[tuple[str, ...]] = ()
    """Signals it needs, by name."""
    without_effect: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that do not change what is picked, such as a bound on memory."""
    by_all_processes: ClassVar[bool] = False
    """Whether all processes of a run call `select` together, to share the work."""

    @abstractmethod
    def pick(self, pool: Pool, count: int) -> Picks:
        """Chooses `count` rows, 1 to len(pool)."""

    def select(self, pool: Pool, count: int) -> Selection:
        """Choose `count` rows of a pool.

        Raises:
            SelectionError: a signal is missing, or the count is not possible.
        """
        if not 0 < count <= len(pool):
            raise SelectionError(f"can't select {count} of {len(pool)} samples")
        for signal in self.signals:
            if signal not in pool.signals:
                absent = [name for name in self.signals if name not in pool.signals]
                raise SelectionError(missing(type(self).__name__, absent))
            if len(pool.signals[signal]) != len(pool):
                raise SelectionError(
                    f"signal {signal!r} has {len(pool.signals[signal])} rows, "
                    f"but there are {len(pool)} records"
                )
        picks = self.pick(pool, count)
        indices = np.asarray(picks.indices, np.int64)
        whole = len(np.unique(indices)) == count == len(indices)
        if not whole or indices.min() < 0 or indices.max() >= len(pool):
            raise SelectionError(
                f"{type(self).__name__} picked {len(indices)} rows where {count} different ones "
                f"from 0 to {len(pool) - 1} were asked for"
            )
        return Selection(
            indices,
            len(pool),
            self.config,
            dict(pool.fingerprints),
            picks.clusters,
            picks.figures,
            None if picks.labels is None else np.asarray(picks.labels, np.int32),
        )

    @property
    def config(self) -> dict[str, Any]:
        """Class path, and the hyperparameters that the picks depend on.

        Raises:
            SelectionError: an argument of the constructor that is not kept.
        """
        names = [
            n for n in inspect.signature(type(self)).parameters if n not in self.without_effect
        ]
        for name in names:
            if not hasattr(self, name):
                raise SelectionError(
                    f"{type(self).__name__}: its argument {name!r} must be kept in self.{name}"
                )
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {name: getattr(self, name) for name in names},
        }


def missing(reader: str, signals: Sequence[str]) -> str:
    """What to say of signals that are not there, with the commands that make them."""
    by_command: dict[str, list[str]] = {}
    for signal in signals:
        by_command.setdefault(MADE_BY.get(signal, "coincide predict"), []).append(signal)
    ways = [
        f"`{command.format(','.join(names))}` makes {', '.join(names)}"
        for command, names in by_command.items()
    ]
    return (
        f"{reader} needs the signals {', '.join(signals)}: {'; '.join(ways)}; "
        "name the directory, or a list of them, in data.signals"
    )


def target_count(fraction: float, size: int) -> int:
    """int(fraction * size), as the authors count.

    Raises:
        SelectionError: the fraction is outside (0, 1], or leaves nothing.
    """
    if not 0 < fraction <= 1:
        raise SelectionError(f"fraction: {fraction} is outside (0, 1]")
    if not int(fraction * size):
        raise SelectionError(f"fraction: {fraction} of {size} samples leaves none")
    return int(fraction * size)
