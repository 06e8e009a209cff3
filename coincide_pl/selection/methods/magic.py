"""MAGIC: answers that need their image and look at it, from every pattern of active neurons."""

from __future__ import annotations

from typing import Literal

import numpy as np

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Array, Bools, Floats, Ints
from coincide_pl.selection.arrays.ranking import ranked
from coincide_pl.selection.arrays.shares import top_of_groups
from coincide_pl.selection.selector import Picks, Pool, Selector
from coincide_pl.selection.steps.checks import positive
from coincide_pl.signals.answer_tokens import BridgingRelevance, SkillNeurons
from coincide_pl.signals.likelihood import NegativeLogLikelihood
from coincide_pl.signals.rewritten import NllWithoutImage

Normalization = Literal["percentiles", "median", "ranks"]
PAPERS = (1, 1, 2, 3)
"""k_l of the paper's four layers."""


class Magic(Selector):
    """Multimodal alignment and grounding-aware instruction coreset (Das Biswas and Roy, 2026, arXiv
    2605.26004).

    From the gain g_i = L(y | x) - L(y | x, I) (eq. 5, 6), the bridging relevance b_i (eq. 8), and
    the signature φ_i, the most active neurons of some layers (eq. 9-11), for M picks of N:

        q_i = α ĝ_i + β b̂_i, normalized                                                (eq. 12)
        E   = the top ⌈ρ N⌉ by g;  S = the top ⌈η M⌉ of E by q                     (eq. 13, 14)
        B_j = the samples of S with one signature                                      (eq. 15)
        p_j ∝ Σ_{i in B_j} exp(q_i / τ)                                                (eq. 16)
        n_j = min(|B_j|, ⌈γ M⌉, ⌊M p_j⌋), and one more by the largest fractions        (eq. 17)

    The top n_j of each bucket by q are picked (eq. 18); what is missing comes from the rest of S,
    then of E, by q. Equal values rank by row.

    The paper does not say how it normalizes, which is an option here, nor what comes where E is
    used up: here the rest, by q. It names two reference models, TinyLLaVA-2B and LLaVA-1.5 after
    its first stage. The one more by fractions stays within |B_j| and ⌈γ M⌉. A sample without an
    image has a gain and a relevance of 0.
    """

    signals = (NegativeLogLikelihood, NllWithoutImage, BridgingRelevance, SkillNeurons)

    def __init__(
        self,
        alpha: float = 0.5,
        beta: float = 0.5,
        rho: float = 0.6,
        eta: float = 2.0,
        temperature: float = 0.2,
        gamma: float = 0.05,
        neurons: list[int] | None = None,
        normalize: Normalization = "percentiles",
    ) -> None:
        """Checks the hyperparameters; the defaults are the paper's (appendix A.3).

        Args:
            alpha: α, weight of the gain in the quality.
            beta: β, weight of the bridging relevance in the quality.
            rho: ρ, share of the data with the highest gains that is eligible.
            eta: η, how many times as many samples as are picked are on the shortlist.
            temperature: τ of the buckets' shares, in units of the quality.
            gamma: γ, share of the picks that a bucket gives at most.
            neurons: k_l, number of neurons of each layer in a signature (default: the paper's 1, 1,
                2, 3, each for its quarter of the layers).
            normalize: how gain and relevance are made comparable: `percentiles` puts the 1st
                percentile at 0 and the 99th at 1 and cuts what is beyond, `median` takes
                the distance to the median in interquartile ranges, `ranks` the rank from 0 to 1.

        Raises:
            SelectionError: a value that makes no sense.
        """
        positive(rho=rho, temperature=temperature, gamma=gamma)
        if min(alpha, beta) < 0:
            raise SelectionError(f"alpha, beta: {alpha}, {beta} must not be negative")
        if not eta >= 1:
            raise SelectionError(f"eta: {eta} must be at least 1")
        if neurons is not None and (not neurons or min(neurons) < 0):
            raise SelectionError(f"neurons: {neurons} must be numbers of neurons, one a layer")
        self.alpha = alpha
        self.beta = beta
        self.rho = rho
        self.eta = eta
        self.temperature = temperature
        self.gamma = gamma
        self.neurons = neurons
        self.normalize: Normalization = normalize

    def pick(self, pool: Pool, count: int) -> Picks:
        """Shortlists by gain and quality, and fills from the buckets."""
        without = np.asarray(pool.signals[NllWithoutImage.name], np.float64)
        gain = without - np.asarray(pool.signals[NegativeLogLikelihood.name], np.float64)  # g
        relevance = np.asarray(pool.signals[BridgingRelevance.name], np.float64)  # b
        quality = self.alpha * normalized(gain, self.normalize)
        quality += self.beta * normalized(relevance, self.normalize)  # q
        eligible = ranked(gain, min(len(pool), int(np.ceil(self.rho * len(pool)))), "highest")
        order = eligible[np.lexsort((eligible, -quality[eligible]))]
        shortlist = np.sort(order[: int(np.ceil(self.eta * count))])
        buckets = self._buckets(pool.signals[SkillNeurons.name], shortlist)
        numbers = self._numbers(quality[shortlist], buckets, count)
        chosen = shortlist[top_of_groups(quality[shortlist], buckets, numbers)]
        left = np.ones(len(pool), bool)
        left[chosen] = False
        for further in (shortlist, eligible, np.arange(len(pool))):
            more = _best(further[left[further]], quality)[: count - len(chosen)]
            left[more] = False
            chosen = np.concatenate([chosen, more])
        return Picks(chosen, figures={"buckets": len(numbers)})

    def _buckets(self, neurons: Array, rows: Ints) -> Ints:
        """The bucket of each of some rows: int64 [n], counted from 0."""
        depth, top = neurons.shape[1:]
        counts = self.neurons
        if counts is None:
            counts = [PAPERS[layer * len(PAPERS) // depth] for layer in range(depth)]
        if len(counts) != depth or max(counts) > top:
            raise SelectionError(
                f"neurons: {counts} does not fit skill_neurons, which has the top {top} neurons of "
                f"{depth} layers"
            )
        parts = [
            np.sort(np.asarray(neurons[rows, layer, :kept], np.int64), 1)  # a set of neurons
            for layer, kept in enumerate(counts)
        ]
        found: Ints = np.unique(np.concatenate(parts, 1), axis=0, return_inverse=True)[1]
        return found.reshape(-1)

    def _numbers(self, quality: Floats, buckets: Ints, count: int) -> Ints:
        """n_j: how many each bucket gives, int64 [K]."""
        sizes = np.bincount(buckets)
        masses = np.exp((quality - quality.max()) / self.temperature)
        due = np.round(count * np.bincount(buckets, masses) / masses.sum(), 9)  # M p
        most = np.minimum(sizes, int(np.ceil(self.gamma * count)))
        numbers: Ints = np.minimum(most, np.floor(due).astype(np.int64))
        order = np.argsort(np.floor(due) - due, kind="stable")
        room: Bools = (numbers < most)[order]
        numbers[order[room][: count - int(numbers.sum())]] += 1
        return numbers


def normalized(values: Floats, how: Normalization) -> Floats:
    """Values [N] made comparable with others, see `Magic`; those that are all the same become 0."""
    if how == "ranks":
        unique, places = np.unique(values, return_inverse=True)
        ranks: Floats = places / max(len(unique) - 1, 1)
        return ranks
    if how == "median":
        low, middle, high = np.percentile(values, (25, 50, 75))
        return (values - middle) / (high - low) if high > low else np.zeros(len(values))
    low, high = np.percentile(values, (1, 99))
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros(len(values))


def _best(rows: Ints, quality: Floats) -> Ints:
    """Rows from the highest quality to the lowest, of equals the lower one first."""
    return rows[np.lexsort((rows, -quality[rows]))]
