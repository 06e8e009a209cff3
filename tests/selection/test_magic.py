"""Lost if these fail: quality, shortlist, buckets and quotas as the paper's equations have them."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.selection import Magic, Pool
from coincide_pl.selection.methods.magic import normalized


def signals(n, seed, layers=4, levels=5):
    random = np.random.default_rng(seed)
    return {
        "nll": random.integers(0, levels, n).astype(np.float32),
        "nll_without_image": random.integers(0, levels, n).astype(np.float32),
        "bridging_relevance": random.integers(0, levels, n).astype(np.float32) / levels,
        "skill_neurons": np.stack(
            [[random.permutation(3) for _ in range(layers)] for _ in range(n)]
        ).astype(np.float32),
    }


def plain(given, m, k, rho, eta, temperature, gamma, how):
    """Equation by equation."""
    n = len(given["nll"])
    g = given["nll_without_image"].astype(float) - given["nll"]
    q = 0.5 * normalized(g, how) + 0.5 * normalized(given["bridging_relevance"].astype(float), how)

    def top(rows, scores, count):
        return sorted(rows, key=lambda row: (-scores[row], row))[:count]

    eligible = top(range(n), g, math.ceil(rho * n))
    shortlist = top(eligible, q, min(math.ceil(eta * m), len(eligible)))
    buckets = {}
    for row in sorted(shortlist):
        phi = [(at, c) for at, kept in enumerate(k) for c in given["skill_neurons"][row, at, :kept]]
        buckets.setdefault(frozenset(phi), []).append(row)
    masses = {b: sum(math.exp(q[i] / temperature) for i in rows) for b, rows in buckets.items()}
    due = {b: m * mass / sum(masses.values()) for b, mass in masses.items()}
    most = {b: min(len(rows), math.ceil(gamma * m)) for b, rows in buckets.items()}
    counts = {b: min(most[b], math.floor(due[b])) for b in buckets}
    left = m - sum(counts.values())
    fraction = {b: due[b] - math.floor(due[b]) for b in buckets}
    return q, eligible, shortlist, buckets, counts, most, fraction, left


@given(
    st.integers(1, 40),
    st.integers(0, 30),
    st.sampled_from(["percentiles", "median", "ranks"]),
    st.sampled_from([0.05, 0.3, 1.0]),
    st.sampled_from([None, [1, 1, 1, 1], [0, 0, 2, 1]]),
    st.data(),
)
@settings(max_examples=60, deadline=None)
def test_equals_the_equations(n, seed, how, gamma, neurons, data):
    given = signals(n, seed)
    m = data.draw(st.integers(1, n))
    k = neurons or [1, 1, 2, 3]
    q, eligible, shortlist, buckets, counts, most, fraction, left = plain(
        given, m, k, 0.6, 2.0, 0.2, gamma, how
    )
    selector = Magic(gamma=gamma, neurons=neurons, normalize=how)
    selection = selector.select(Pool(range(n), given), m)
    chosen = selection.indices.tolist()
    assert selection.figures["buckets"] == len(buckets)
    picked = 0
    one_more = {}
    for bucket, rows in buckets.items():
        rows.sort(key=lambda row: (-q[row], row))
        own = [row for row in rows if row in chosen]
        assert own == rows[: len(own)]  # eq. 18, and backfill goes by q too
        assert len(own) >= counts[bucket]
        picked += len(own)
        one_more[bucket] = len(own) > counts[bucket]
    room = [b for b in buckets if counts[b] < most[b]]
    if left <= len(room):  # no backfill: who gives one more has the largest fractions
        gave, not_gave = ([fraction[b] for b in room if one_more[b] is x] for x in (True, False))
        assert len(gave) == left
        assert min(gave, default=1) >= max(not_gave, default=0) - 1e-9
        assert picked == m
    else:
        numbers = {b: counts[b] + (b in room) for b in buckets}
        taken = {row for b, rows in buckets.items() for row in rows[: numbers[b]]}
        for rows in (shortlist, eligible, range(n)):
            more = sorted(set(rows) - taken, key=lambda row: (-q[row], row))
            taken |= set(more[: m - len(taken)])
        assert set(chosen) == taken


def test_normalizations():
    values = np.arange(101.0)
    assert normalized(values, "percentiles")[[0, 1, 50, 99, 100]].tolist() == [0, 0, 0.5, 1, 1]
    assert normalized(values, "median")[[25, 50, 75]].tolist() == [-0.5, 0, 0.5]
    assert normalized(values**3, "ranks")[[0, 50, 100]].tolist() == [0, 0.5, 1]
    for how in ("percentiles", "median", "ranks"):
        assert normalized(np.full(4, 7.0), how).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(("layers", "kept"), [(1, [1]), (2, [1, 2]), (5, [1, 1, 1, 2, 3])])
def test_other_numbers_of_layers_have_the_papers_numbers_at_their_depth(layers, kept):
    given = signals(30, 0, layers)
    default, named = (
        Magic(neurons=neurons).select(Pool(range(30), given), 9) for neurons in (None, kept)
    )
    assert default.indices.tolist() == named.indices.tolist()
    assert default.figures == named.figures


def test_same_inputs_same_selection_and_wrong_input_is_named():
    pool = Pool(range(40), signals(40, 0))
    assert Magic().select(pool, 9).fingerprint == Magic().select(pool, 9).fingerprint
    with pytest.raises(SelectionError, match=r"signals='\[nll,nll_without_image,bridging_relev"):
        Magic().select(Pool(range(5)), 2)
    with pytest.raises(SelectionError, match=r"neurons: \[1, 9, 1, 1\] does not fit .* top 3"):
        Magic(neurons=[1, 9, 1, 1]).select(pool, 9)
    for wrong in ({"rho": 0}, {"temperature": 0}, {"gamma": 0}, {"eta": 0.5}, {"alpha": -1}):
        with pytest.raises(SelectionError, match=next(iter(wrong))):
            Magic(**wrong)
    with pytest.raises(SelectionError, match="neurons: "):
        Magic(neurons=[])
