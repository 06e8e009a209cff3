"""What every selector is: hyperparameters in the constructor, `select(pool, count)`."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from coincide_pl import signals as room
from coincide_pl.data.record import UNNAMED, Record
from coincide_pl.data.records import Records
from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Array, Arrays, Ints
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.cache import Cache, NoCache
from coincide_pl.selection.selection import PUBLIC, Selection
from coincide_pl.signals.manifest import Origin
from coincide_pl.signals.signal import Signal, making

SignalKind = type[Signal] | str
"""The class of a signal, or the name under which a store holds it."""


@dataclass(frozen=True)
class Pool:
    """The samples that a selector chooses from, and what is known of them.

    Attributes:
        records: the samples.
        signals: per-sample arrays [N, ...] by name, rows in record order.
        several: by name, signals that are read from several stores, such as one per checkpoint:
            their arrays [N, ...] in the order of `data.signals`.
        origins: by name, what each array of a signal comes from, in the same order.
        fingerprints: of the data, of the signals, and so on.
        num_layers: M, how many layers the activations hold, if there are activations.
        cache: where a selector may keep what it would compute again for another fraction.
        device: where it may compute, such as `cuda:0`.
    """

    records: Sequence[Record]
    signals: Mapping[str, Array] = field(default_factory=dict)
    fingerprints: dict[str, str] = field(default_factory=dict)
    num_layers: int | None = None
    cache: Cache = field(default_factory=NoCache)
    device: str = "cpu"
    several: Mapping[str, Sequence[Array]] = field(default_factory=dict)
    origins: Mapping[str, Sequence[Origin]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.records)

    @property
    def sources(self) -> list[str]:
        """The source of every record, [N]; `UNNAMED` stands for none."""
        if isinstance(self.records, Records):
            return self.records.sources
        return [record.source or UNNAMED for record in self.records]

    def rows(self, name: str, option: str | None = None) -> Rows:
        """The rows [N, D] of a signal, read block by block.

        Args:
            name: of the signal.
            option: argument of the selector that names the signal, if one does.

        Raises:
            SelectionError: the signal is a number for each sample, or something else.
        """
        about = f"{option}: the signal {name!r}" if option else f"the signal {name!r}"
        return Rows(self.signals[name], name=about)


@dataclass(frozen=True)
class Picks:
    """What a selector's `pick` gives.

    Attributes:
        indices: int [count], rows of the pool in order of picking.
        clusters: columns of per-cluster figures [K] by name, where there are clusters.
        figures: what else is worth knowing of how it went, by name.
        labels: int [N], the cluster of each row, where there are clusters.
    """

    indices: Ints | Sequence[int]
    clusters: Arrays = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    labels: Ints | None = None


class Selector(ABC):
    """A way to choose. A subclass keeps each constructor argument in an attribute of its name."""

    signals: ClassVar[tuple[SignalKind, ...]] = ()
    """Signals it needs, each by its class, or by the name under which a store holds it."""
    several: ClassVar[tuple[SignalKind, ...]] = ()
    """Signals it reads from every store that holds them, such as one per checkpoint of a model."""
    without_effect: ClassVar[tuple[str, ...]] = ()
    """Constructor arguments that do not change what is picked, such as a bound on memory."""
    by_all_processes: ClassVar[bool] = False
    """Whether all processes of a run call `select` together, to share the work."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Selector:
        """Refuses a class without `pick`.

        Raises:
            SelectionError: naming the class.
        """
        if cls.__abstractmethods__:
            raise SelectionError(
                f"{cls.__module__}.{cls.__qualname__} is no selector yet: it has no method "
                "pick(self, pool, count) (see README, a selector of your own)"
            )
        return super().__new__(cls)

    @property
    def needs(self) -> tuple[SignalKind, ...]:
        """Signals it needs of one store each; a subclass may let its arguments say which."""
        return self.signals

    @property
    def stores(self) -> Mapping[str, Sequence[str]]:
        """Directories of signals of other data that it reads, such as of tasks to choose for.

        They are given by the constructor's argument that names them, such as `targets`.
        """
        return {}

    @abstractmethod
    def pick(self, pool: Pool, count: int) -> Picks:
        """Chooses `count` rows of a pool, from 1 to all of them."""

    def select(self, pool: Pool, count: int) -> Selection:
        """Choose `count` rows of a pool.

        Raises:
            SelectionError: a signal is missing, or the count is not possible.
        """
        if not 0 < count <= len(pool):
            raise SelectionError(f"can't select {count} of {len(pool)} samples")
        absent = [kind for kind in self.needs if name_of(kind) not in pool.signals]
        absent += [kind for kind in self.several if not pool.several.get(name_of(kind))]
        if absent:
            raise SelectionError(missing(type(self).__name__, absent))
        found = [(name, pool.signals[name]) for name in map(name_of, self.needs)]
        found += [(name, one) for name in map(name_of, self.several) for one in pool.several[name]]
        for name, values in found:
            if len(values) != len(pool):
                raise SelectionError(
                    f"signal {name!r} has {len(values)} rows, but there are {len(pool)} records"
                )
            if values.ndim == 1 and not np.isfinite(values).all():
                bad = np.argmin(np.isfinite(values))
                raise SelectionError(f"signal {name!r} of record {bad} is NaN or infinite")
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
        init = type(self).__init__
        every = [] if init is object.__init__ else list(inspect.signature(init).parameters)[1:]
        names = [name for name in every if name not in self.without_effect]
        for name in names:
            if not hasattr(self, name):
                raise SelectionError(
                    f"{type(self).__name__}: its argument {name!r} must be kept in self.{name}"
                )
        module = type(self).__module__
        public = PUBLIC if module.startswith(f"{PUBLIC}.") else module  # files may move
        return {
            "class_path": f"{public}.{type(self).__qualname__}",
            "init_args": {name: getattr(self, name) for name in names},
        }


def name_of(kind: SignalKind) -> str:
    """The name under which a store holds a signal."""
    return kind if isinstance(kind, str) else kind.name


def missing(reader: str, signals: Sequence[SignalKind]) -> str:
    """What to say of signals that are not there, with the commands that make them.

    Args:
        reader: who needs them, as the message should say.
        signals: at least one.
    """
    found = [kind if not isinstance(kind, str) else signal_class(kind) for kind in signals]
    classes = [kind for kind in found if kind is not None]
    unknown = [str(kind) for kind, own in zip(signals, found, strict=True) if own is None]
    ways = [making(classes)] if classes else []
    if unknown:
        ways.append(f"no class of this package makes {', '.join(unknown)}, write one (see README)")
    return (
        f"{reader} needs the signals {', '.join(map(name_of, signals))}: {'; '.join(ways)}; "
        "name the directory, or a list of them, in data.signals"
    )


def signal_class(name: str) -> type[Signal] | None:
    """The class whose signals have a name, if this package has one."""
    found = [getattr(room, public) for public in room.__all__ if not public.startswith("Write")]
    kinds = [kind for kind in found if isinstance(kind, type) and issubclass(kind, Signal)]
    return next((kind for kind in kinds if getattr(kind, "name", None) == name), None)


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
