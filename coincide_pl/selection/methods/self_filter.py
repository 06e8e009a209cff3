"""Self-Filter: what the model itself finds hard, and not the same twice."""

from __future__ import annotations

from typing import ClassVar

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.greedy import pick_and_lower
from coincide_pl.selection.arrays.neighbors import EXACT_BELOW, nearest_neighbors
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.signals.clip import ClipImage, ClipText
from coincide_pl.signals.difficulty import Difficulty


class SelfFilter(Selector):
    """The model as its own filter (Chen et al., Findings of ACL 2024, arXiv 2402.12501).

    `SelfFilterModule` trains a score net on CLIP features together with the model; a sample's
    difficulty d is the negative of the net's output. The most difficult sample i is picked, and its
    10 nearest among those that remain are lowered: d_j ← d_j - γ cos²(i, j) d_i; repeat. Equal
    difficulties go by row. A sample without an image is compared by its text alone.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (Difficulty, ClipImage, ClipText)

    def __init__(
        self,
        num_neighbors: int = 10,
        gamma: float = 1.0,
        num_candidates: int = 50,
        exact_below: int = EXACT_BELOW,
        seed: int = 0,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_neighbors: number of samples that a pick lowers.
            gamma: γ, how far a pick lowers its neighbors.
            num_candidates: number of nearest samples that these are looked for among. Where fewer
                of them remain, fewer are lowered: the ones beyond are hardly similar.
            exact_below: number of samples from which on neighbors are searched approximately.
            seed: seed of the samples that the approximate search is trained on.

        Raises:
            SelectionError: a value that makes no sense.
        """
        positive(num_neighbors=num_neighbors, gamma=gamma)
        if num_candidates < num_neighbors:
            raise SelectionError(
                f"num_candidates: {num_candidates} must be at least num_neighbors, {num_neighbors}"
            )
        self.num_neighbors = num_neighbors
        self.gamma = gamma
        self.num_candidates = num_candidates
        self.exact_below = exact_below
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """Finds neighbors by CLIP's image and text embeddings, and picks."""
        features = Rows(pool.signals[ClipImage.name], pool.signals[ClipText.name])
        graph = nearest_neighbors(
            features, self.num_candidates, exact_below=self.exact_below, seed=self.seed
        )
        cosines = np.where(graph.rows >= 0, 1 - graph.distances / 2, 0)  # [N, candidates]
        weights = self.gamma * np.square(cosines)
        difficulty = np.asarray(pool.signals[Difficulty.name])
        return Picks(pick_and_lower(difficulty, graph.rows, weights, count, self.num_neighbors))
