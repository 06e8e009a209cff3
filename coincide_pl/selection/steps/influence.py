"""How much training on a sample would help with given tasks: cosines of gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from coincide_pl.data.record import UNNAMED
from coincide_pl.errors import SelectionError, SignalsError
from coincide_pl.selection.arrays.dtypes import Array, Floats, Ints
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.signals.gradients import COMMAND, Gradient, GradientNorm, Task
from coincide_pl.signals.manifest import Origin, StoredSignal
from coincide_pl.signals.store import Signals, SignalsStore

NUMBERS = 1 << 24
"""Numbers of a block that is held as float32, 64 MiB; the width alone decides how many rows."""

Mean = Literal["cosines", "gradients"]
"""What is averaged over the samples of a task."""


@dataclass(frozen=True)
class Tasks:
    """The tasks that are chosen for, as one checkpoint sees them.

    Attributes:
        names: of the K tasks.
        directions: float32 [K, d], whose product with a sample's direction is its influence.
    """

    names: list[str]
    directions: Floats


def tasks_of(targets: Sequence[str], origin: Origin, mean: Mean = "cosines") -> Tasks:
    """Reads the gradients of the tasks' own data.

    Args:
        targets: stores, of any checkpoints; those of this one are read. Each source of their data
            is a task; a store whose data name no sources is one, by its directory's name.
        origin: of the training data's gradients.
        mean: what is averaged over a task's samples: the `cosines` with them, or their `gradients`,
            so that the influence is a cosine with the mean.

    Raises:
        SelectionError: no store is of this checkpoint, one lacks a signal or has gradients of
            another projection, or two have a task of one name.
    """
    names: list[str] = []
    directions: list[Floats] = []
    for path in targets:
        try:
            store = SignalsStore(path)
        except SignalsError as error:
            raise SelectionError(f"targets: {error}") from error
        if store.manifest.model != origin.manifest.model:
            continue
        found, numbers = _numbered(store)
        gradients, about = _held(store, Gradient.name)
        if (own := about.arguments) != origin.signal.arguments:
            raise SelectionError(
                f"targets: {path}: its gradients were made with {own}, and those of data.signals "
                f"with {origin.signal.arguments}; make them with the same"
            )
        weights = None
        if mean == "gradients":
            weights = np.asarray(_held(store, GradientNorm.name)[0], np.float64)
        sums, counts = sums_by_group(Rows(gradients), numbers, len(found), weights)
        if mean == "gradients":
            counts = np.linalg.norm(sums, axis=1)
        names += found
        directions.append((sums / np.where(counts > 0, counts, 1)[:, None]).astype(np.float32))
    if not names:
        raise SelectionError(
            "targets: none of the stores comes from the same warm-up checkpoint as data.signals; "
            f"`{COMMAND.format(Gradient.name)}` makes one, of the tasks' own data"
        )
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SelectionError(f"targets: several stores have a task called {twice[0]!r}")
    return Tasks(names, np.concatenate(directions))


def influences(gradients: Array, directions: Floats) -> Floats:
    """The product of each sample's direction with each task's.

    Args:
        gradients: [N, d], rows of norm 1 or zero.
        directions: float32 [K, d].

    Returns:
        float32 [N, K]; it does not depend on the number of threads.
    """
    rows = Rows(gradients)
    if rows.width != directions.shape[1]:
        raise SelectionError(
            f"gradients of {rows.width} numbers, and tasks' of {directions.shape[1]}"
        )
    out = np.empty((len(rows), len(directions)), np.float32)
    for span, block in rows.blocks(height(rows)):
        wide = block.astype(np.float32)
        for task, direction in enumerate(directions):
            out[span, task] = np.einsum("nd,d->n", wide, direction)
    return out


def sums_by_group(
    rows: Rows, groups: Ints, count: int, weights: Floats | None = None
) -> tuple[Floats, Floats]:
    """Sums of the rows of each group, block by block in one order.

    Args:
        rows: [N, d].
        groups: int [N], from 0 to `count` - 1; -1 for a row of none.
        count: K, number of groups.
        weights: float64 [N], by which rows are multiplied.

    Returns:
        float64 [K, d], and [K] how many rows each has.
    """
    sums = np.zeros((count, rows.width))
    for span, block in rows.blocks(height(rows)):
        own = groups[span]
        order = np.argsort(own, kind="stable")
        order = order[own[order] >= 0]
        if not len(order):
            continue
        wide = block[order].astype(np.float32)
        if weights is not None:
            wide *= weights[span][order, None].astype(np.float32)
        starts = np.flatnonzero(np.diff(own[order], prepend=-1))
        sums[own[order[starts]]] += np.add.reduceat(wide, starts, axis=0)
    return sums, np.bincount(groups[groups >= 0], minlength=count).astype(np.float64)


def height(rows: Rows) -> int:
    """Rows of a block."""
    return max(1, NUMBERS // max(1, rows.width))


def _numbered(store: SignalsStore) -> tuple[list[str], Ints]:
    """The tasks of a store, and the number of each row's."""
    numbers, about = _held(store, Task.name)
    names = list(about.arguments["names"])
    if names == [UNNAMED]:
        names = [Path(store.directory).name]
    return names, np.asarray(numbers)


def _held(store: SignalsStore, kind: str) -> tuple[Array, StoredSignal]:
    """A signal of a store, and what its manifest says of it."""
    signals = Signals([store])
    if kind not in signals:
        raise SelectionError(
            f"targets: {store.directory}: holds no {kind}; "
            f"`{COMMAND.format(f'{Gradient.name},{GradientNorm.name}')}` makes it"
        )
    try:
        _, name = signals.holder(kind)
    except SignalsError as error:  # several, of which one must be named
        raise SelectionError(str(error).replace("data.signals", "targets")) from error
    return store[name], store.manifest.signals[name]
