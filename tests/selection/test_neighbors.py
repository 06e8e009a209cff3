"""Lost if these fail: each sample's nearest, found exactly, or nearly so where there are many."""

import numpy as np
import pytest

from coincide_pl.selection.arrays import neighbors
from coincide_pl.selection.arrays import rows as reading
from coincide_pl.selection.arrays.neighbors import nearest_neighbors
from coincide_pl.selection.arrays.rows import Rows


def plain(x, k, normalize):
    x = x.astype(np.float64)
    if normalize:
        x = x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
    squared = ((x[:, None] - x[None]) ** 2).sum(2)
    np.fill_diagonal(squared, np.inf)
    order = np.argsort(squared, 1, kind="stable")[:, :k]
    return order, np.take_along_axis(squared, order, 1)


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("floats", [50, 1 << 25])
def test_small_pools_are_exact(normalize, floats, monkeypatch):
    monkeypatch.setattr(reading, "FLOATS", floats)
    x = np.random.default_rng(0).normal(size=(90, 7)).astype(np.float16)
    x[3] = 0  # a sample without an image
    found = nearest_neighbors(x, 5, normalize)
    rows, squared = plain(x, 5, normalize)
    others = np.arange(90) != 3  # from zeros all are as far, up to rounding
    np.testing.assert_array_equal(found.rows[others], rows[others])
    np.testing.assert_allclose(found.distances, squared, rtol=1e-5, atol=1e-6)


def test_copies_are_neighbors_and_a_row_is_not_its_own():
    x = np.repeat(np.random.default_rng(0).normal(size=(5, 4)).astype(np.float32), 4, 0)
    found = nearest_neighbors(x, 3)
    assert (found.distances == 0).all()
    for row, near in enumerate(found.rows.tolist()):
        assert near == [r for r in range(row // 4 * 4, row // 4 * 4 + 4) if r != row]


def test_fewer_than_asked_for():
    x = np.eye(3, dtype=np.float32)
    assert nearest_neighbors(x, 10).rows.shape == (3, 2)
    assert nearest_neighbors(x[:1], 10).rows.shape == (1, 0)


def test_large_pools_are_nearly_exact_and_always_the_same(monkeypatch):
    monkeypatch.setattr(neighbors, "WIDTH", 16)
    monkeypatch.setattr(reading, "FLOATS", 20_000)
    random = np.random.default_rng(0)
    groups = random.normal(size=(40, 12))
    x = groups[random.integers(0, 40, 2000)] + 0.2 * random.normal(size=(2000, 12))
    x = x @ random.normal(size=(12, 48)) + 0.01 * random.normal(size=(2000, 48))
    exact = nearest_neighbors(x, 5)
    found = nearest_neighbors(x, 5, exact_below=100)
    pairs = zip(exact.rows, found.rows, strict=True)
    recall = np.mean([len(set(a) & set(b)) / 5 for a, b in pairs])
    assert recall > 0.9
    assert (found.rows != np.arange(2000)[:, None]).all()
    again = nearest_neighbors(x, 5, exact_below=100)
    np.testing.assert_array_equal(again.rows, found.rows)


def test_arrays_side_by_side_read_as_one(tmp_path):
    a = np.arange(6, dtype=np.float16).reshape(3, 2)
    np.save(tmp_path / "b.npy", np.arange(9, dtype=np.float16).reshape(3, 3))
    b = np.load(tmp_path / "b.npy", mmap_mode="r")
    both, whole = Rows(a, b), np.concatenate([a, b], 1)
    assert (len(both), both.width) == (3, 5)
    np.testing.assert_array_equal(both.gather(np.array([0, 2])), whole[[0, 2]])
    np.testing.assert_array_equal(both.floats(slice(1, 3), normalize=False), whole[1:3])
    np.testing.assert_array_equal(both.floats(np.array([2, 0]), normalize=False), whole[[2, 0]])
    np.testing.assert_array_equal(both.subset(np.array([0, 2])).block(1, 2), whole[[2]])
