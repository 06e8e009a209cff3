"""Lost if these fail: the farthest from their prototypes are kept, or the nearest."""

import numpy as np
import pytest

from coincide_pl.errors import SelectionError
from coincide_pl.selection import Pool, SelfSup
from coincide_pl.selection.arrays.kmeans import spherical_kmeans


def features(n=120, width=5):
    return np.random.default_rng(1).normal(size=(n, width)).astype(np.float16)


@pytest.mark.parametrize("keep", ["hard", "easy"])
@pytest.mark.parametrize("count", [1, 40, 120])
def test_equals_the_plain_rule(keep, count):
    x = features()
    clusters = spherical_kmeans(x, 6, 50, 1234)
    x64 = x.astype(np.float64)
    distance = {
        row: 1 - x64[row] @ clusters.centroids[label] / np.linalg.norm(x64[row])
        for row, label in enumerate(clusters.labels)
    }
    sign = -1 if keep == "hard" else 1
    expected = sorted(distance, key=lambda row: (sign * distance[row], row))[:count]
    pool = Pool(range(120), {"mean_token": x})
    selection = SelfSup(num_clusters=6, keep=keep).select(pool, count)
    assert selection.indices.tolist() == expected
    assert selection.clusters["selected"].sum() == count
    again = SelfSup(num_clusters=6, keep=keep).select(pool, count)
    assert again.fingerprint == selection.fingerprint


def test_wrong_input_is_named():
    with pytest.raises(SelectionError, match=r"SelfSup needs .*--model.signals='\[mean_token\]'"):
        SelfSup().select(Pool(range(5)), 2)
    with pytest.raises(SelectionError, match="num_iterations: 0"):
        SelfSup(num_iterations=0)
