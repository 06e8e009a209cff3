"""Lost if these fail: the least redundant are kept, as many as asked for."""

import numpy as np
import pytest

from coincide_pl.errors import SelectionError
from coincide_pl.selection import Pool, SemDeDup
from coincide_pl.selection.arrays.kmeans import spherical_kmeans
from coincide_pl.selection.methods import semdedup


def features(n=150, width=6, seed=0):
    random = np.random.default_rng(seed)
    return (5 * random.normal(size=(n, width))).astype(np.float16)


def plain(x, k, count):
    """Pair by pair."""
    clusters = spherical_kmeans(x, k, 50, 1234)
    x = x.astype(np.float64)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    redundancy = {}
    for cluster in range(k):
        rows = np.flatnonzero(clusters.labels == cluster)
        rows = sorted(rows, key=lambda row: (unit[row] @ clusters.centroids[cluster], row))
        for at, row in enumerate(rows):
            redundancy[row] = max([unit[row] @ unit[before] for before in rows[:at]], default=-1.0)
    return sorted(redundancy, key=lambda row: (redundancy[row], row))[:count]


@pytest.mark.parametrize("k", [1, 7])
@pytest.mark.parametrize("count", [1, 30, 149, 150])
@pytest.mark.parametrize("block", [5, 2048])
def test_equals_the_plain_rule(k, count, block, monkeypatch):
    monkeypatch.setattr(semdedup, "BLOCK", block)
    x = features()
    selection = SemDeDup(num_clusters=k).select(Pool(range(150), {"last_token": x}), count)
    assert selection.indices.tolist() == plain(x, k, count)
    assert selection.clusters["selected"].sum() == count
    assert selection.clusters["size"].sum() == 150


def test_copies_go_first():
    x = features(40)
    pool = Pool(range(80), {"last_token": np.concatenate([x, x])})
    chosen = SemDeDup(num_clusters=4).select(pool, 40).indices
    assert sorted(row % 40 for row in chosen.tolist()) == list(range(40))


def test_same_inputs_same_selection():
    pool = Pool(range(150), {"last_token": features()})
    first, second = (SemDeDup(num_clusters=7).select(pool, 50).fingerprint for _ in range(2))
    assert first == second


def test_wrong_input_is_named():
    with pytest.raises(SelectionError, match=r"SemDeDup needs .*--model.signals='\[last_token\]'"):
        SemDeDup(num_clusters=2).select(Pool(range(5)), 2)
    with pytest.raises(SelectionError, match="num_clusters: 0"):
        SemDeDup(num_clusters=0)
    with pytest.raises(SelectionError, match="9 clusters of 5"):
        SemDeDup(num_clusters=9).select(Pool(range(5), {"last_token": features(5)}), 2)
