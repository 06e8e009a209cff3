"""ICONS: the samples that help with the most tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Floats, Ints
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.influence import influences, tasks_of
from coincide_pl.signals.gradients import Gradient

Ties = Literal["random", "influence", "row"]


class Icons(Selector):
    """Influence consensus (Wu et al., arXiv 2501.00654; the rule is that of the authors' code).

    The influence of a sample z on a task is the mean cosine of its gradient with those of the
    task's data, all of them plain gradients at one warm-up checkpoint. A task votes for the samples
    whose influence on it is at or above the (100 - p)th percentile, and those with the most votes
    are kept. Each source of the targets' data is a task.

    The authors' code makes one task of MME's subtasks, with a sample's largest influence on any of
    them; here each is one.

    Votes are few and samples many: where the cut falls, most have as many votes as others. The
    authors' code sorts by votes alone with a sort that keeps no order, so which of them are kept is
    arbitrary; here it is drawn, or goes by influence.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (Gradient,)

    def __init__(
        self,
        targets: list[str],
        percent: float | None = None,
        ties: Ties = "random",
        seed: int = 0,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            targets: stores of `gradient` of the tasks' own data, made with the checkpoint that
                `data.signals` comes from.
            percent: p, share of the samples that a task votes for, in percent (default: the share
                that is chosen, as in the paper).
            ties: which samples of as many votes are kept: drawn at `random`, those with the highest
                mean `influence` on the tasks, or the first by `row`.
            seed: seed of the draw.

        Raises:
            SelectionError: no targets, or a percentage outside (0, 100].
        """
        if not targets:
            raise SelectionError("targets: Icons chooses for given tasks; name their stores")
        if percent is not None and not 0 < percent <= 100:
            raise SelectionError(f"percent: {percent} is outside (0, 100]")
        self.targets, self.percent = targets, percent
        self.ties: Ties = ties
        self.seed = seed

    @property
    def stores(self) -> Mapping[str, Sequence[str]]:
        """The targets."""
        return {"targets": self.targets}

    def pick(self, pool: Pool, count: int) -> Picks:
        """The samples with the most votes."""
        tasks = tasks_of(self.targets, pool.origins[Gradient.name][0])
        found = pool.cache.also(pool.fingerprints).once(
            "icons",
            {},
            lambda _: {"influence": influences(pool.signals[Gradient.name], tasks.directions)},
        )["influence"]
        voted = votes(found, 100 * count / len(pool) if self.percent is None else self.percent)
        if self.ties == "random":
            order = np.random.default_rng(self.seed).permutation(len(pool))
        elif self.ties == "influence":
            order = -found.mean(1, dtype=np.float64)
        else:
            order = np.arange(len(pool))
        indices = np.lexsort((order, -voted))[:count]
        by_votes = np.bincount(voted[indices], minlength=len(tasks.names) + 1)
        return Picks(indices, figures={"picked by votes": by_votes.tolist()})


def votes(influence: Floats, percent: float) -> Ints:
    """How many tasks vote for each sample.

    Args:
        influence: [N, K].
        percent: p; at or above the (100 - p)th percentile of a task, interpolated, it votes.

    Returns:
        int64 [N], from 0 to K.
    """
    out = np.zeros(len(influence), np.int64)
    for column in influence.T:
        out += column >= np.percentile(column, 100 - percent)
    return out
