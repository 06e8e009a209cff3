"""Lost if these fail: DataTailor's clusters, ranks and budgets, without all pairs of a source."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.data.record import Record, Turn
from coincide_pl.errors import SelectionError
from coincide_pl.selection import DataTailor, Pool
from coincide_pl.selection.methods import data_tailor
from coincide_pl.selection.steps.ward import ward_labels


def states(n, seed=0, width=4):
    """Groups of different sizes and distances."""
    random = np.random.default_rng(seed)
    centers = 4 * random.normal(size=(5, width))
    rows = centers[random.integers(0, 5, n)] + random.normal(size=(n, width)) * 0.5
    return rows.astype(np.float16)


def pool_of(n=70, seed=0, **changed):
    """Samples of three sources, with one to three answers each."""
    random = np.random.default_rng(seed)
    spectrum = random.uniform(0.2, 3, (n, 2)).astype(np.float32)
    records = [
        Record(
            str(i), (), (Turn("user", "?"), Turn("assistant", "!")) * (1 + i % 3), f"s{i % 7 // 3}"
        )
        for i in range(n)
    ]
    signals = {"token_spectrum": spectrum, "last_token_state": states(n, seed), **changed}
    return Pool(records, signals)


def plain_ward(x, cut):
    """Merges the two clusters whose union is the lowest, as long as there are two."""
    groups = {i: [i] for i in range(len(x))}
    history = []
    while len(groups) > 1:

        def height(pair):
            a, b = (groups[one] for one in pair)
            apart = x[a].mean(0) - x[b].mean(0)
            return math.sqrt(2 * len(a) * len(b) / (len(a) + len(b)) * (apart @ apart))

        a, b = min(itertools.combinations(sorted(groups), 2), key=height)
        history.append((height((a, b)), a, b))
        groups[a] = groups[a] + groups.pop(b)
    owner = list(range(len(x)))
    top = max((h for h, _, _ in history), default=0)
    for h, a, b in history:
        if h <= cut * top:
            old = owner[b]
            owner = [owner[a] if one == old else one for one in owner]
    return owner


def same_groups(one, other):
    return {frozenset(np.flatnonzero(np.array(one) == k)) for k in set(one)} == {
        frozenset(np.flatnonzero(np.array(other) == k)) for k in set(other)
    }


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 24), st.integers(0, 99), st.floats(0.02, 1))
def test_ward_merges_the_pair_whose_union_is_lowest(n, seed, cut):
    x = np.random.default_rng(seed).normal(size=(n, 3))
    assert same_groups(ward_labels(x, cut).tolist(), plain_ward(x, cut))


def place(values, row):
    """The rank of a row among values, from 0 to 1 - 1/n."""
    order = sorted(range(len(values)), key=lambda i: (values[i], i))
    return order.index(row) / len(values)


def plain(pool, count, cut):
    """The rule, sample by sample."""
    spectrum = pool.signals["token_spectrum"].astype(np.float64)
    x = pool.signals["last_token_state"].astype(np.float64)
    names = sorted({record.source for record in pool.records})
    sources = [[i for i, r in enumerate(pool.records) if r.source == name] for name in names]
    weights = np.array([len(s) * spectrum[s, 1].mean() ** 2 for s in sources])
    shares = np.floor(count * weights / weights.sum()).astype(int)
    for s in np.argsort(-(count * weights / weights.sum() - shares))[: count - shares.sum()]:
        shares[s] += 1
    if count == len(pool):
        shares = [len(s) for s in sources]
    chosen = []
    for s, share in zip(sources, shares, strict=True):
        owner = plain_ward(x[s], cut)
        means = {k: x[s][np.array(owner) == k].mean(0) for k in set(owner)}
        unique, typical = [], []
        for i, row in enumerate(s):
            mine = [j for j in range(len(s)) if owner[j] == owner[i]]
            apart = {(a, b): np.linalg.norm(x[s[a]] - x[s[b]]) for a in mine for b in mine}
            whole = sum(apart.values()) / len(mine)
            near = sum(apart[i, j] * spectrum[s[j], 0] for j in mine)
            unique.append(near / whole if len(mine) > 1 else np.inf)
            a = means[owner[i]]
            alike = [
                math.exp(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
                for k, b in means.items()
                if k != owner[i]
            ]
            typical.append(np.mean(alike or [1]) * spectrum[row, 0])
        told = spectrum[s, 0].tolist()
        scores = {}
        for i, row in enumerate(s):
            turns = sum(turn.role == "assistant" for turn in pool.records[row].turns)
            worth = turns * place(told, i) + place(unique, i) + place(typical, i)
            scores[row] = worth / (turns + 2)
        chosen += sorted(s, key=lambda row: -scores[row])[:share]
    return chosen


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 99), st.integers(1, 45), st.sampled_from([0.0, 0.1, 0.5]))
def test_equals_the_plain_rule(seed, count, cut):
    pool = pool_of(seed=seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data_tailor, "BLOCK", 5)
        selection = DataTailor(cut).select(pool, count)
    assert selection.indices.tolist() == plain(pool, count, cut)
    assert selection.clusters["size"].sum() == 70
    assert selection.clusters["selected"].sum() == count


@pytest.mark.parametrize("compared", [2, 7, 12])
@pytest.mark.parametrize("count", [1, 33, 70])
def test_with_a_bound_on_pairs_counts_are_exact_and_the_same_again(compared, count):
    pool = pool_of()
    first, second = (DataTailor(compared=compared).select(pool, count) for _ in range(2))
    assert len(set(first.indices.tolist())) == count
    assert first.fingerprint == second.fingerprint


def test_a_bound_above_all_sizes_changes_nothing_and_groups_are_found_below_it():
    pool = pool_of()
    exact = DataTailor().select(pool, 30).indices.tolist()
    assert DataTailor(compared=30).select(pool, 30).indices.tolist() == exact  # 30 a source at most
    x = np.repeat(np.eye(4) * 10, 25, 0) + np.random.default_rng(0).normal(size=(100, 4)) * 0.1
    some = np.arange(0, 100, 7)
    labels, means = data_tailor.clusters(data_tailor.Rows(x.astype(np.float16)), some, 0.5)
    assert same_groups(labels.tolist(), np.repeat(range(4), 25).tolist())
    np.testing.assert_allclose(np.sort(means.max(1)), 10, atol=0.1)


def test_samples_alike_and_sources_of_one():
    same = pool_of(last_token_state=np.ones((70, 4), np.float16))
    assert len(DataTailor().select(same, 20).indices) == 20
    records = [Record(str(i), (), (Turn("user", "?"),), f"s{i}") for i in range(5)]
    signals = {"token_spectrum": np.ones((5, 2)), "last_token_state": states(5)}
    assert len(DataTailor().select(Pool(records, signals), 3).indices) == 3


def test_wrong_input_is_named():
    with pytest.raises(SelectionError, match=r"='\[token_spectrum,last_token_state\]'"):
        DataTailor().select(Pool(range(5)), 2)
    for name in ("token_spectrum", "last_token_state"):
        bad = np.array(pool_of().signals[name])
        bad[7, 0] = np.nan
        with pytest.raises(SelectionError, match="record 7 "):
            DataTailor().select(pool_of(**{name: bad}), 9)
    with pytest.raises(SelectionError, match="cut: 2 is outside"):
        DataTailor(2)
    with pytest.raises(SelectionError, match="compared: 1 must be 2 or more"):
        DataTailor(compared=1)
