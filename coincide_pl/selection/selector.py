"""What every selector is: hyperparameters in the constructor, `select(pool, count)`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from coincide_pl.data.records import Record
from coincide_pl.errors import SelectionError
from coincide_pl.selection.cache import Cache, NoCache
from coincide_pl.selection.selection import Selection


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
    """

    indices: np.ndarray
    clusters: dict[str, np.ndarray] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)


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
                raise SelectionError(
                    f"{type(self).__name__} needs the signal {signal!r}: make it with "
                    "`coincide predict` and name its folder in data.signals"
                )
            if len(pool.signals[signal]) != len(pool):
                raise SelectionError(
                    f"signal {signal!r} has {len(pool.signals[signal])} rows, "
                    f"but there are {len(pool)} records"
                )
        picks = self.pick(pool, count)
        return Selection(
            np.asarray(picks.indices, np.int64),
            len(pool),
            self.config,
            dict(pool.fingerprints),
            picks.clusters,
            picks.figures,
        )

    @property
    def config(self) -> dict[str, Any]:
        """Class path, and the hyperparameters that the picks depend on."""
        names = [
            n for n in inspect.signature(type(self)).parameters if n not in self.without_effect
        ]
        return {
            "class_path": f"{type(self).__module__}.{type(self).__qualname__}",
            "init_args": {name: getattr(self, name) for name in names},
        }


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
