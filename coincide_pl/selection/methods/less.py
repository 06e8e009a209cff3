"""LESS: the samples whose training step goes where the tasks' own gradients go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Arrays, Floats
from coincide_pl.selection.arrays.ranking import ranked
from coincide_pl.selection.cache import Checkpointer
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.influence import Mean, influences, tasks_of
from coincide_pl.signals.gradients import AdamGradient
from coincide_pl.signals.manifest import Origin


class Less(Selector):
    """Low-rank gradient similarity search (Xia et al., ICML 2024, arXiv 2402.04333).

    As the authors' `matching.py` computes it, with Γ(z; θ_i) the step of Adam on a training sample
    z at the warm-up's checkpoint i, ∇ℓ(z'; θ_i) the gradient of a sample z' of the subtask D_j,
    both projected, and η_i the mean learning rate of the checkpoint's epoch, of sum 1:

        Inf(z, D_j) = Σ_i η_i mean_{z' in D_j} cos(∇ℓ(z'; θ_i), Γ(z; θ_i))

    The samples with the highest max_j Inf(z, D_j) are kept; equals rank by row. The paper takes the
    cosine with the mean gradient of D_j, the authors' code the mean of the cosines: the default is
    the code's. Each source of the targets' data is a subtask.
    """

    several: ClassVar[tuple[SignalKind, ...]] = (AdamGradient,)

    def __init__(
        self,
        targets: list[str],
        learning_rates: list[float] | None = None,
        mean: Mean = "cosines",
    ) -> None:
        """Checks that there are targets.

        Args:
            targets: stores of `gradient` of the tasks' own data, made with the checkpoints that
                `data.signals` comes from, in any order.
            learning_rates: η, weights of the checkpoints in the order of `data.signals` (default:
                the mean learning rate of each one's epoch, as the warm-up noted it).
            mean: what is averaged over the samples of a task: `cosines`, as in the authors' code,
                or `gradients`, as in the paper.

        Raises:
            SelectionError: no targets.
        """
        if not targets:
            raise SelectionError("targets: Less chooses for given tasks; name their stores")
        self.targets, self.learning_rates = targets, learning_rates
        self.mean: Mean = mean

    @property
    def stores(self) -> Mapping[str, Sequence[str]]:
        """The targets."""
        return {"targets": self.targets}

    def pick(self, pool: Pool, count: int) -> Picks:
        """The samples with the most influence on one of the tasks.

        Raises:
            SelectionError: no target of a checkpoint, or other tasks at another.
        """
        origins = pool.origins[AdamGradient.name]
        tasks = [tasks_of(self.targets, origin, self.mean) for origin in origins]
        names = tasks[0].names
        for other in tasks:
            if other.names != names:
                raise SelectionError(
                    f"targets: the tasks are {', '.join(names)} at one checkpoint, and "
                    f"{', '.join(other.names)} at another"
                )
        rates = self._weights(origins)

        def influence(_: Checkpointer) -> Arrays:
            total = np.zeros((len(pool), len(names)), np.float32)
            for array, own, rate in zip(
                pool.several[AdamGradient.name], tasks, rates.tolist(), strict=True
            ):
                total += rate * influences(array, own.directions)
            return {"influence": total}

        depends_on = {name: getattr(self, name) for name in ("learning_rates", "mean")}
        found = pool.cache.also(pool.fingerprints).once("less", depends_on, influence)["influence"]
        indices = ranked(found.max(1), count, "highest")
        best = np.bincount(found[indices].argmax(1), minlength=len(names))
        return Picks(indices, figures={"chosen for": dict(zip(names, best.tolist(), strict=True))})

    def _weights(self, origins: Sequence[Origin]) -> Floats:
        """η, of sum 1."""
        given = self.learning_rates
        if given is None and len(origins) == 1:
            given = [1.0]
        if given is None:
            noted = [origin.manifest.settings.get("learning_rate") for origin in origins]
            given = [float(rate) for rate in noted if rate is not None]
            if len(given) < len(noted):
                raise SelectionError(
                    "learning_rates: the warm-up did not note them, as --config trainers/warm_up "
                    "does; give one for each store of data.signals"
                )
        rates = np.array(given, np.float64)
        if len(rates) != len(origins) or not (rates > 0).all():
            raise SelectionError(
                f"learning_rates: {given} must be {len(origins)} positive numbers, one for each "
                "store of data.signals"
            )
        normalized: Floats = rates / rates.sum()
        return normalized
