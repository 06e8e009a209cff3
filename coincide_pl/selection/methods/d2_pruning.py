"""D2-Pruning: difficulty and diversity by messages on a graph of neighbors."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np

from coincide_pl.selection.arrays.greedy import pick_and_lower
from coincide_pl.selection.arrays.neighbors import EXACT_BELOW, nearest_neighbors
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.checks import positive
from coincide_pl.signals.embeddings import MeanToken
from coincide_pl.signals.likelihood import Margin


class D2Pruning(Selector):
    """Message passing on the k-NN graph (Maharana et al., ICLR 2024, arXiv 2310.07931).

    From a score s_i by the margin AUM, and the distances d of the mean hidden states:

        forward     s_i ← s_i + Σ_{j in N(i)} exp(-d_ij²) s_j
        selection   pick the highest s_i, then s_j ← s_j - exp(-γ d_ij²) s_i for j in N(i); repeat

    N(i) are the k nearest of i, of those that are left in the selection. Equal scores go by row.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (Margin, MeanToken)

    def __init__(
        self,
        num_neighbors: int = 5,
        gamma: float = 0.4,
        keep: Literal["easy", "hard"] = "easy",
        normalize: bool = True,
        exact_below: int = EXACT_BELOW,
        seed: int = 0,
    ) -> None:
        """Checks the hyperparameters.

        Args:
            num_neighbors: k, number of neighbors of a sample in the graph.
            gamma: γ, how far a pick lowers its neighbors.
            keep: samples that are preferred: `easy` scores a sample max(AUM, 0), as COINCIDE's
                authors do; `hard` scores it 1 - AUM.
            normalize: whether distances are measured between rows of norm 1. The authors take rows
                as they are: in a wide model all exp(-d²) are then 0, and the graph has no say.
            exact_below: number of samples from which on neighbors are searched approximately.
            seed: seed of the samples that the approximate search is trained on.

        Raises:
            SelectionError: a value that makes no sense.
        """
        positive(num_neighbors=num_neighbors, gamma=gamma)
        self.num_neighbors = num_neighbors
        self.gamma = gamma
        self.keep = keep
        self.normalize = normalize
        self.exact_below = exact_below
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """Builds the graph, passes messages, and picks."""
        margin = np.asarray(pool.signals[Margin.name], np.float64)  # [N]
        scores = np.maximum(margin, 0) if self.keep == "easy" else 1 - margin
        graph = nearest_neighbors(
            pool.signals[MeanToken.name],
            self.num_neighbors,
            self.normalize,
            self.exact_below,
            self.seed,
        )
        messages = np.exp(-graph.distances) * scores[graph.rows]  # [N, k]; 0 where there is none
        weights = np.exp(-self.gamma * graph.distances)
        forward = scores + messages.sum(1)
        return Picks(pick_and_lower(forward, graph.rows, weights, count, self.num_neighbors))
