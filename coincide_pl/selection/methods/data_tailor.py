"""DataTailor: samples that say much, are unlike their neighbors, and stand for their source."""

from __future__ import annotations

from functools import partial
from typing import ClassVar

import numpy as np
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays.dtypes import Arrays, Floats, Ints
from coincide_pl.selection.arrays.ranking import ranked
from coincide_pl.selection.arrays.rows import Rows, spans
from coincide_pl.selection.cache import Checkpointer
from coincide_pl.selection.methods.per_source import sources_of
from coincide_pl.selection.selector import Picks, Pool, Selector, SignalKind
from coincide_pl.selection.steps.apportioned import apportioned
from coincide_pl.selection.steps.kernels import members
from coincide_pl.selection.steps.ward import ward_labels
from coincide_pl.signals.spectra import LastTokenState, TokenSpectrum

BLOCK = 2048
"""Rows that are compared with others at once."""


class DataTailor(Selector):
    """Informativeness, uniqueness and representativeness (Yu et al., arXiv 2412.06293, and code).

    Of a sample's tokens: I_i, the entropy of their normalized singular values, and τ_i, the largest
    of these. Ward's clustering of the last tokens' states, source by source, is cut at a tenth of
    its highest merge. With d the distance of two states, and c̄ a cluster's mean state:

    - uniqueness U_i = Σ_j d_ij I_j over i's cluster, by the cluster's mean of Σ_j d_ij; a sample
      alone in its cluster is the most unique;
    - representativeness R_i = I_i × mean exp(cos(c̄_a, c̄_b)) over the other clusters b of the
      source; 1 for the mean, where there is no other.

    A source of n samples gets its part of the count by n (mean τ)². In it the samples rank by
    (T rank(I) + rank(U) + rank(R)) / (T + 2), for T answers and ranks from 0, the lowest, to 1. The
    code divides R by its source's mean too, which changes no rank.

    The authors read the states while they train, hold all distances of a source, and leave out
    what their rounding of budgets drops; here counts are exact, and of sources or clusters with
    more than `compared` samples as many are drawn, with which the others are compared.
    """

    signals: ClassVar[tuple[SignalKind, ...]] = (TokenSpectrum, LastTokenState)

    def __init__(self, cut: float = 0.1, compared: int = 8192, seed: int = 0) -> None:
        """Checks the hyperparameters.

        Args:
            cut: height at which clusters are cut, as a share of the source's highest merge.
            compared: number of samples of a source, or of a cluster, that are compared with each
                other, 8 bytes a pair.
            seed: seed of the draw where a source or a cluster has more.

        Raises:
            SelectionError: a value that makes no sense.
        """
        if not 0 <= cut <= 1:
            raise SelectionError(f"cut: {cut} is outside [0, 1]")
        if compared < 2:
            raise SelectionError(f"compared: {compared} must be 2 or more")
        self.cut = cut
        self.compared = compared
        self.seed = seed

    def pick(self, pool: Pool, count: int) -> Picks:
        """The best of each source by the three ranks.

        Raises:
            SelectionError: a signal that is not finite.
        """
        spectrum = np.asarray(pool.signals[TokenSpectrum.name], np.float64)  # [N, 2]: I, τ
        if not np.isfinite(spectrum).all():
            bad = int(np.argmin(np.isfinite(spectrum).all(1)))
            raise SelectionError(f"signal 'token_spectrum' of record {bad} is NaN or infinite")
        states = pool.rows(LastTokenState.name)
        cache = pool.cache.also({"signals": pool.fingerprints.get("signals"), **self._settings})
        sources = sources_of(pool.sources)
        sizes = np.array([len(rows) for rows in sources.values()])
        taus = np.array([spectrum[rows, 1].mean() for rows in sources.values()])
        counts = apportioned(sizes * taus**2, sizes, count)
        indices, labels, first = [], np.empty(len(pool), np.int64), 0
        for (name, rows), share in zip(sources.items(), counts.tolist(), strict=True):
            told = spectrum[rows, 0]
            found = cache.once(
                "beside",
                {"source": name, "rows": len(rows)},
                partial(self._source, states.subset(rows), told),
            )
            turns = np.array([answers(pool, row) for row in rows.tolist()])
            scores = turns * ranks(told) + ranks(found["unique"]) + ranks(found["typical"])
            indices.append(rows[ranked(scores / (turns + 2), share, "highest")])
            labels[rows] = found["labels"] + first
            first += int(found["labels"].max()) + 1
        chosen = np.concatenate(indices)
        columns = {
            "size": np.bincount(labels, minlength=first),
            "selected": np.bincount(labels[chosen], minlength=first),
        }
        figures = {"counts": dict(zip(sources, counts.tolist(), strict=True))}
        return Picks(chosen, columns, figures, labels)

    @property
    def _settings(self) -> dict[str, object]:
        """The hyperparameters that clusters and distances depend on."""
        return {"cut": self.cut, "compared": self.compared, "seed": self.seed}

    def _source(self, states: Rows, informative: Floats, _: Checkpointer) -> Arrays:
        """`labels` of a source's states [n, D], and by sample `unique`, U, and `typical`, R.

        U and R are in float32, so that the last bits of sums decide nothing.
        """
        random = np.random.default_rng(self.seed)
        drawn = sample(np.arange(len(states)), self.compared, random)
        labels, means = clusters(states, drawn, self.cut)
        typical = informative * likeness(means)[labels]
        unique = np.empty(len(states))
        for rows in members(labels, len(means)):
            beside = sample(rows, self.compared, random)
            unique[rows] = uniqueness(states, rows, beside, informative)
        return {
            "labels": labels,
            "unique": unique.astype(np.float32),
            "typical": typical.astype(np.float32),
        }


def sample(rows: Ints, most: int, random: np.random.Generator) -> Ints:
    """The rows, or so many of them drawn at random, ascending."""
    return rows if len(rows) <= most else np.sort(random.choice(rows, most, replace=False))


def clusters(states: Rows, drawn: Ints, cut: float) -> tuple[Ints, Floats]:
    """Ward's clusters of the drawn rows; each other row belongs to the nearest mean of theirs.

    Returns:
        Labels int64 [n], and the means float64 [K, D] of all rows of each cluster.

    Raises:
        SelectionError: a row holds NaN or infinity.
    """
    own = ward_labels(finite(states, drawn), cut)
    centers = sums(states, own, drawn) / np.bincount(own)[:, None]
    squares = np.einsum("kd,kd->k", centers, centers)
    labels = np.full(len(states), -1, np.int64)
    labels[drawn] = own
    away = np.flatnonzero(labels < 0)
    for span in spans(len(away), BLOCK):
        products = finite(states, away[span]) @ centers.T
        labels[away[span]] = (squares - 2 * products).argmin(1)
    return labels, sums(states, labels, np.arange(len(states))) / np.bincount(labels)[:, None]


def sums(states: Rows, labels: Ints, rows: Ints) -> Floats:
    """Sums of some rows by their labels, float64 [K, D]."""
    total = torch.zeros(int(labels.max()) + 1, states.width, dtype=torch.float64)
    for span in spans(len(rows), BLOCK):
        block = torch.from_numpy(finite(states, rows[span]))
        total.index_add_(0, torch.from_numpy(labels[span]), block)
    found: Floats = total.numpy()
    return found


def finite(states: Rows, rows: Ints) -> Floats:
    """Some rows as float64.

    Raises:
        SelectionError: one holds NaN or infinity.
    """
    block = states.gather(rows).astype(np.float64)
    if not np.isfinite(block).all():
        bad = states.number(int(rows[np.argmin(np.isfinite(block).all(1))]))
        raise SelectionError(f"the features of record {bad} hold NaN or infinity")
    return block


def likeness(means: Floats) -> Floats:
    """The mean exp(cosine) of each cluster's mean with the others, [K]; 1 where there is none."""
    if len(means) == 1:
        return np.ones(1)
    unit = means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-300)
    near = np.exp(unit @ unit.T)
    np.fill_diagonal(near, 0)
    found: Floats = near.sum(1) / (len(means) - 1)
    return found


def uniqueness(states: Rows, rows: Ints, beside: Ints, informative: Floats) -> Floats:
    """Distances to others of the cluster, weighted by what these say, by the cluster's mean.

    Args:
        states: [n, D].
        rows: of one cluster, m.
        beside: those of them that they are compared with.
        informative: I, [n].

    Returns:
        float64 [m]; infinite for a row alone, zero where all are the same.
    """
    if len(rows) == 1:
        return np.full(1, np.inf)
    others = states.gather(beside).astype(np.float64)
    squares = np.einsum("nd,nd->n", others, others)
    weighted, total = np.empty(len(rows)), 0.0
    for span in spans(len(rows), BLOCK):
        own = states.gather(rows[span]).astype(np.float64)
        apart = np.einsum("nd,nd->n", own, own)[:, None] + squares - 2 * (own @ others.T)
        apart[rows[span][:, None] == beside] = 0
        distances = np.sqrt(np.maximum(apart, 0, out=apart), out=apart)
        weighted[span] = distances @ informative[beside]
        total += distances.sum()
    return weighted * (len(rows) / total) if total > 0 else np.zeros(len(rows))


def ranks(values: Floats) -> Floats:
    """Places of values in ascending order, from 0 to 1 - 1/n; equal ones go by row."""
    places = np.empty(len(values))
    places[np.argsort(values, kind="stable")] = np.arange(len(values))
    return places / len(values)


def answers(pool: Pool, row: int) -> int:
    """How many turns of a record are the assistant's."""
    return sum(turn.role == "assistant" for turn in pool.records[row].turns)
