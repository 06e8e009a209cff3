"""Lost if these fail: the steadiest of each cluster of trajectories, evenly, and exact counts."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.reporting.origin import check_description
from coincide_pl.selection import Pool, Xmas
from coincide_pl.selection.methods.xmas import walk


def stores(n=80, checkpoints=3, texts=(), seed=0):
    """The singular values of each checkpoint, the largest first; zeros without an image."""
    random = np.random.default_rng(seed)
    found = -np.sort(-random.uniform(0.1, 3, (checkpoints, n, 5)).astype(np.float32))
    found[:, list(texts)] = 0
    return list(found)


def select(found, count, **options):
    pool = Pool(range(len(found[0])), several={"cross_attention": found})
    return Xmas(**{"num_clusters": 6, **options}).select(pool, count)


@settings(max_examples=20, deadline=None)
@given(
    st.integers(0, 99),
    st.integers(1, 80),
    st.integers(1, 5),
    st.sampled_from([(), (3, 4, 9, 30, 31, 32, 33), (7,)]),
)
def test_equals_the_plain_walk(seed, count, top, texts):
    found = stores(texts=texts, seed=seed)
    chosen = select(found, count, top=top)
    labels, picked = chosen.labels, set(chosen.indices.tolist())
    assert set(np.flatnonzero(labels == 6).tolist()) == set(texts)
    tracks = [[float(sum(store[row, :top].tolist())) for store in found] for row in range(80)]
    unrest = [sum(abs(b - a) for a, b in itertools.pairwise(t)) for t in tracks]
    clusters = [np.flatnonzero(labels == k).tolist() for k in range(7)]
    clusters = sorted((rows for rows in clusters if len(rows) >= 3), key=len)
    left = count
    for place, rows in enumerate(clusters):
        share = min(len(rows), left // (len(clusters) - place))
        left -= share
        mine = [row for row in rows if row in picked]
        assert len(mine) == share
        if rows[0] not in texts:  # the steadiest
            assert mine == sorted(sorted(rows, key=lambda row: unrest[row])[:share])
    assert len(picked) == count


def test_clusters_are_those_of_alike_trajectories():
    base = np.repeat([[1.0, 5.0, 2.0], [4.0, 1.0, 4.0]], 30, 0)
    found = [np.pad(base[:, [c]], ((0, 0), (0, 4))).astype(np.float32) for c in range(3)]
    labels = select(found, 10, num_clusters=2).labels
    assert len(set(labels[:30].tolist())) == len(set(labels[30:].tolist())) == 1
    assert labels[0] != labels[-1]


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_shares_are_even_and_add_up(data):
    sizes = np.array(data.draw(st.lists(st.integers(0, 9), min_size=1, max_size=8)))
    count = data.draw(st.integers(0, int(sizes.sum())))
    shares = walk(sizes, count, 3)
    assert shares.sum() == count
    assert (shares <= sizes).all()
    large = sizes >= 3
    if shares[~large].any():
        assert (shares[large] == sizes[large]).all()
    open_ = shares[large & (shares < sizes)]
    assert len(open_) == 0 or shares[large].max() <= open_.min() + 1


def test_same_inputs_same_selection_and_the_order_of_checkpoints_counts():
    found = stores(texts=range(9))
    first, second = (select(found, 30).fingerprint for _ in range(2))
    assert first == second
    swapped = select([found[1], found[0], found[2]], 30)
    assert swapped.indices.tolist() != select(found, 30).indices.tolist()


def test_texts_alone_are_drawn():
    found = stores(texts=range(80))
    chosen = select(found, 30).indices.tolist()
    assert len(set(chosen)) == 30
    assert chosen != sorted(chosen)


def test_wrong_input_is_named():
    with pytest.raises(SelectionError, match=r"Xmas needs .*--model.signals='\[cross_attention\]'"):
        Xmas().select(Pool(range(5)), 2)
    with pytest.raises(SelectionError, match="one store alone holds it: name several"):
        select(stores(checkpoints=1), 2)
    with pytest.raises(SelectionError, match="top: 6 are more"):
        select(stores(), 2, top=6)
    with pytest.raises(SelectionError, match="99 clusters of 80 samples with an image"):
        select(stores(), 2, num_clusters=99)
    with pytest.raises(SelectionError, match="num_clusters: 0 must be positive"):
        Xmas(0)
    with pytest.raises(SelectionError, match="has 80 rows, but there are 70 records"):
        Xmas().select(Pool(range(70), several={"cross_attention": stores()}), 2)
    bad = stores()
    bad[1][7, 0] = np.nan
    with pytest.raises(SelectionError, match="of record 7 is NaN"):
        select(bad, 2)


def test_as_many_clusters_as_samples_are_a_selection_that_report_reads():
    check_description(select(stores(n=6), 3, num_clusters=6))  # and one, empty, without an image
