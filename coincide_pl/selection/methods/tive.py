"""TIVE: more samples from tasks that are hard, and within each those that stand for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Array, Floats, Ints
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.apportioned import apportioned
from coincide_pl.selection.steps.influence import height, sums_by_group
from coincide_pl.signals.gradients import Gradient, GradientNorm


class Tive(Selector):
    """Task and instance value (Liu et al., arXiv 2403.09559; the rule is that of the authors' code,
    `select_data_TIVE.py`).

    The data's sources are the tasks. With g_i a sample's gradient and D_k a task of n_k samples,

        budget of k  ∝  1/n_k Σ_{i in D_k} ‖g_i‖
        score of i   =  1/n_k Σ_{j in D_k} cos(g_i, g_j)      (i itself among them)

    and a task's budget is drawn from it without replacement, with weights exp(q · score). Scores
    are between -1 and 1, so with the code's q = 0.001 all samples of a task are about equally
    likely; a larger q prefers those that stand for their task.

    Where a budget is larger than its task, the code takes samples several times. A selection holds
    none twice: such a task is taken whole, and the others share the rest by the same weights.
    The code rounds budgets down, and so ends short; here the largest fractions make up for that. It
    reads gradients by the adapters of the attention, after a warm-up on 8 % of the data.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (Gradient, GradientNorm)

    def __init__(self, q: float = 0.001, without: list[str] | None = None, seed: int = 0) -> None:
        """Sets how strongly scores count.

        Args:
            q: factor of a sample's score in the exponent of its weight.
            without: sources that nothing is picked from (the authors: `textcaps`, which their model
                has seen in pretraining; default: none).
            seed: seed of the draw.
        """
        self.q, self.without, self.seed = q, without, seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """Shares the count among tasks, and draws from each.

        Raises:
            SelectionError: a source in `without` that no record has, or too few samples beside it.
        """
        names, task = tasks_of(pool.sources)
        if unknown := sorted(set(self.without or ()) - set(names)):
            raise SelectionError(f"without: no record has the source {unknown[0]!r}")
        left_out = np.isin(np.array(names), self.without or [])
        task = np.where(left_out[task], -1, task)
        sizes = np.bincount(task[task >= 0], minlength=len(names))
        if sizes.sum() < count:
            raise SelectionError(
                f"without: leaves {sizes.sum()} samples, and {count} are to be picked"
            )
        norms = np.asarray(pool.signals[GradientNorm.name], np.float64)
        means = np.bincount(task[task >= 0], norms[task >= 0], len(names)) / np.maximum(sizes, 1)
        least = means.max() * 1e-9 or 1.0  # so that no task is without a share
        budgets = apportioned(np.maximum(means, least), sizes, count)
        found = pool.cache.also(pool.fingerprints).once(
            "tive",
            {"without": self.without},
            lambda _: {"scores": scores(pool.signals[Gradient.name], task, len(names))},
        )["scores"]
        # The highest of weight plus Gumbel noise are a draw without replacement.
        keys = self.q * found + np.random.default_rng(self.seed).gumbel(size=len(pool))
        order = np.lexsort((-keys, task))
        order = order[task[order] >= 0]
        starts = np.cumsum(sizes) - sizes
        indices = [
            order[start : start + budget]
            for start, budget in zip(starts.tolist(), budgets.tolist(), strict=True)
        ]
        columns = {"size": sizes, "selected": budgets, "mean gradient norm": means}
        labels = np.where(task < 0, len(names), task)
        if left_out.any():
            columns = {name: np.append(values, 0) for name, values in columns.items()}
            columns["size"][-1] = len(pool) - sizes.sum()
        return Picks(np.concatenate(indices), columns, {"tasks": names}, labels)


def tasks_of(sources: Sequence[str]) -> tuple[list[str], Ints]:
    """The sources of some records, sorted, and the number of each record's, int64 [N]."""
    numbers = {name: number for number, name in enumerate(sorted(set(sources)))}
    return list(numbers), np.array([numbers[source] for source in sources], np.int64)


def scores(gradients: Array, task: Ints, count: int) -> Floats:
    """The mean cosine of each sample's gradient with those of its task, float64 [N]."""
    rows = Rows(gradients)
    sums, sizes = sums_by_group(rows, task, count)
    directions = (sums / np.maximum(sizes, 1)[:, None]).astype(np.float32)
    out = np.zeros(len(rows))
    for span, block in rows.blocks(height(rows)):
        own = task[span]
        out[span] = np.einsum("nd,nd->n", block.astype(np.float32), directions[own])
    return out
