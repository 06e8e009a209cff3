"""Lost if these fail: samples spread evenly over clusters of clusters, rare ones not drowned."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.selection import HierarchicalKMeans, Pool
from coincide_pl.selection.arrays.kmeans import spherical_kmeans
from coincide_pl.selection.cache import Cache


def features(n=240, width=6, seed=0):
    random = np.random.default_rng(seed)
    return random.normal(size=(n, width)).astype(np.float16)


def cosines(x, centroids):
    x = x.astype(np.float64)
    return x / np.linalg.norm(x, axis=1, keepdims=True) @ centroids.T.astype(np.float64)


def plain_level(x, k, times, seed=1234):
    """One level, as the paper states it."""
    found = spherical_kmeans(x, k, 50, seed)
    centroids, labels = found.centroids, found.labels
    for time in range(times):
        near = []
        for cluster in range(k):
            rows = np.flatnonzero(labels == cluster)
            close = cosines(x, centroids)[rows, cluster]
            near += rows[np.argsort(-close, kind="stable")][: len(x) // k // 2].tolist()
        centroids = spherical_kmeans(x[sorted(near)], k, 50, seed + 1 + time).centroids
        labels = cosines(x, centroids).argmax(1)
    return centroids, labels


def select(x, count, clusters=(20, 4), **options):
    pool = Pool(range(len(x)), {"activations": x})
    return HierarchicalKMeans(list(clusters), **options).select(pool, count)


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 99), st.integers(1, 240), st.sampled_from([0, 2]))
def test_levels_are_those_of_the_plain_rule_and_shares_are_even(seed, count, times):
    x = features(seed=seed)
    chosen = select(x, count, resamplings=[times, times])
    centroids, labels = plain_level(x, 20, times)
    np.testing.assert_array_equal(chosen.labels, labels)
    _, above = plain_level(centroids, 4, times)
    picked = np.bincount(labels[chosen.indices], minlength=20)
    np.testing.assert_array_equal(chosen.clusters["selected"], picked)
    sizes = np.bincount(labels, minlength=20)
    # Of two that are not exhausted, none gives two more than the other: at the top, and below.
    tops = np.bincount(above, picked, 4), np.bincount(above, sizes, 4)
    groups = [tops, *((picked[above == top], sizes[above == top]) for top in range(4))]
    for own, held in groups:
        left = own[own < held]
        assert len(left) == 0 or own.max() <= left.min() + 1


def test_a_rare_kind_gives_as_many_as_a_common_one():
    random = np.random.default_rng(0)
    centers = np.eye(6)[[0] * 400 + [1] * 400 + [2] * 20 + [3] * 20]
    x = (centers + 0.05 * random.normal(size=centers.shape)).astype(np.float16)
    chosen = select(x, 60, clusters=(40, 4)).indices
    drawn = np.bincount(centers.argmax(1)[chosen], minlength=4)
    assert drawn[2] + drawn[3] >= 15  # a random choice holds about 3


@pytest.mark.parametrize("sampling", ["random", "nearest"])
@pytest.mark.parametrize("count", [1, 7, 239, 240])
@pytest.mark.parametrize("clusters", [(5,), (30, 6), (30, 6, 2)])
def test_exact_counts_and_the_same_again(sampling, count, clusters):
    first, second = (select(features(), count, clusters, sampling=sampling) for _ in range(2))
    assert len(set(first.indices.tolist())) == count
    assert first.fingerprint == second.fingerprint


def test_nearest_are_the_nearest():
    x = features()
    chosen = select(x, 60, sampling="nearest", resamplings=[0, 0])
    found = spherical_kmeans(x, 20, 50, 1234)
    close = cosines(x, found.centroids)[np.arange(240), found.labels]
    for cluster in range(20):
        rows = np.flatnonzero(found.labels == cluster)
        own = set(rows.tolist()) & set(chosen.indices.tolist())
        order = rows[np.argsort(-close[rows], kind="stable")]
        assert own == set(order[: len(own)].tolist())


def test_another_signal_and_what_is_kept_for_another_fraction(tmp_path):
    x = features()
    pool = Pool(range(240), {"mean_token": x}, {"signals": "s"}, cache=Cache(tmp_path, {}))
    method = HierarchicalKMeans([20, 4], signal="mean_token")
    first = method.select(pool, 60)
    assert len(list(tmp_path.glob("level-*"))) == 2
    empty = Pool(range(240), {"mean_token": x * 0}, {"signals": "s"}, cache=Cache(tmp_path, {}))
    assert method.select(empty, 60).fingerprint == first.fingerprint  # nothing is clustered again
    other = HierarchicalKMeans([20, 5], signal="mean_token").select(pool, 60)
    np.testing.assert_array_equal(other.labels, first.labels)  # the first level is used again
    assert len(list(tmp_path.glob("level-*"))) == 3


def test_wrong_input_is_named():
    with pytest.raises(
        SelectionError, match=r"HierarchicalKMeans needs .*signals='\[activations\]'"
    ):
        HierarchicalKMeans([4]).select(Pool(range(5)), 2)
    with pytest.raises(SelectionError, match="no class of this package makes mine"):
        HierarchicalKMeans([4], signal="mine").select(Pool(range(5)), 2)
    for wrong in ([], [0], [4, 4], [4, 9]):
        with pytest.raises(SelectionError, match=r"num_clusters: .* each smaller"):
            HierarchicalKMeans(wrong)
    with pytest.raises(SelectionError, match=r"resamplings: \[1\] must be a number"):
        HierarchicalKMeans([9, 4], resamplings=[1])
    with pytest.raises(SelectionError, match="9 clusters of 5"):
        select(features(5), 2, (9,))
