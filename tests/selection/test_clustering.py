"""Lost if these fail: the same clusters whatever the memory, threads and interruptions."""

import hashlib

import faiss
import numpy as np
import pytest
import torch

from coincide_pl.errors import SelectionError
from coincide_pl.selection.arrays import assigner, groups, kept_centroids, table
from coincide_pl.selection.arrays.diagnostics import diagnostics
from coincide_pl.selection.arrays.exact import unit_centroids
from coincide_pl.selection.arrays.kmeans import choose_method, spherical_kmeans
from coincide_pl.selection.arrays.nearest import Nearest
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.arrays.sketch import sketch
from coincide_pl.selection.cache import Cache


def mixture(n=1500, width=96, groups=40, noise=0.35, seed=0):
    random = np.random.default_rng(seed)
    centers = random.normal(size=(groups, width))
    owner = random.integers(0, groups, n)
    x = centers[owner] + noise * 3 * random.normal(size=(n, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16), owner


@pytest.fixture
def mapped(tmp_path):
    x, _ = mixture()
    np.save(tmp_path / "x.npy", x)
    return np.load(tmp_path / "x.npy", mmap_mode="r")


def test_rows_are_read_from_the_file_as_from_memory(mapped):
    whole, random = np.array(mapped), np.random.default_rng(0)
    rows = Rows(mapped)
    for count in (0, 1, 7, 800, 1500):
        some = np.sort(random.choice(1500, count, replace=False))
        np.testing.assert_array_equal(rows.gather(some), whole[some])
        part = np.sort(random.choice(count, count // 2, replace=False))
        np.testing.assert_array_equal(rows.subset(some).gather(part), whole[some][part])
    for height in (1, 64, 4000):
        parts = [block for _, block in rows.blocks(height)]
        np.testing.assert_array_equal(np.concatenate(parts), whole)


def test_exact_is_what_faiss_finds_from_the_same_start():
    x, _ = mixture()
    ours = spherical_kmeans(x, 30, 50, seed=3, method="exact")
    start = x[np.random.default_rng(3).choice(1500, 30, replace=False)].astype(np.float32)
    theirs = faiss.Kmeans(96, 30, niter=50, spherical=True, max_points_per_centroid=1500)
    theirs.train(x.astype(np.float32), init_centroids=start)
    labels = theirs.index.search(x.astype(np.float32), 1)[1][:, 0]
    assert (labels == ours.labels).mean() > 0.99
    np.testing.assert_allclose(np.linalg.norm(ours.centroids, axis=1), 1, atol=1e-6)


@pytest.mark.parametrize("method", ["exact", "projected", "two_level"])
def test_nothing_but_data_and_settings_changes_the_clusters(mapped, method, monkeypatch):
    def run(features, memory=1 << 26):
        return spherical_kmeans(features, 40, 12, method=method, projection=32, memory=memory)

    first = run(np.array(mapped))
    others = [run(mapped), run(mapped, 1 << 20), run(mapped, 1 << 17)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1 if threads > 1 else 2)
    others.append(run(mapped))
    torch.set_num_threads(threads)
    monkeypatch.setattr(assigner, "MANY", 1)
    for dtype in (torch.bfloat16, torch.float32):
        monkeypatch.setattr(assigner, "fastest", lambda device, dtype=dtype: dtype)
        others.append(run(mapped))
    for other in others:
        np.testing.assert_array_equal(other.labels, first.labels)
        np.testing.assert_array_equal(other.centroids, first.centroids)
        assert other.diagnostics == first.diagnostics


def equal_rows(x):
    x[100:140] = x[:40]  # centroids as near to both


def empty_clusters(x):
    x[:] = x[np.arange(len(x)) % 33]  # fewer rows than clusters: others are split


def many_ties(x):
    x[:] = np.sign(x.astype(np.float32)) * (np.arange(400) % 3 == 0) / 16


def rows_of_zeros(x):
    x[::7] = 0


@pytest.mark.parametrize("made", [equal_rows, empty_clusters, many_ties, rows_of_zeros])
def test_bounds_change_no_label(made, monkeypatch):
    """Against comparing every row with every centroid that moved, in every iteration."""
    x, _ = mixture(n=900, width=400, noise=0.5)
    made(x)
    narrow, sure = table.Table.narrow, []

    def watched(self, *args):
        unsure, second = narrow(self, *args)
        sure.append(int((~unsure).sum()))
        return unsure, second

    monkeypatch.setattr(table.Table, "narrow", watched)
    monkeypatch.setattr(groups, "FEW", 3)  # a row's own centroid comes first in most groups
    plain = spherical_kmeans(x, 40, 15, memory=1 << 19)  # too little for a table
    assert not sure
    found = spherical_kmeans(x, 40, 15, memory=1 << 26)
    assert max(sure) >= 450
    np.testing.assert_array_equal(found.labels, plain.labels)
    np.testing.assert_array_equal(found.centroids, plain.centroids)


def test_bounds_hold_however_centroids_move():
    x, _ = mixture(n=300, width=3000)
    random, rows = np.random.default_rng(0), np.arange(0, 300, 3)
    centroids = unit_centroids(x[:20].astype(np.float64))
    near = Nearest(centroids, np.arange(20), torch.float32, torch.device("cpu"))
    known = table.Table(300, 20)
    known.norms[:] = np.linalg.norm(x.astype(np.float32), axis=1)
    known.rest[:] = near.products(torch.from_numpy(x)).numpy()
    known.begin(centroids, near.error)
    for step in (0.5, 0.1, 0.02, 0.001, 0.0):
        moved = centroids.astype(np.float64)
        moved[::2] += step * random.normal(size=(10, 3000)) / 3000**0.5
        centroids = unit_centroids(moved)
        known.move(centroids)
        low, high = known.bounds(np.arange(300))
        exact = x.astype(np.float64) @ centroids.T.astype(np.float64)
        assert (low <= exact).all()
        assert (exact <= high).all()
        columns = np.array([1, 2, 8])
        known.learn(rows, columns, exact[np.ix_(rows, columns)].astype(np.float32))
        low, high = known.bounds(rows)
        assert (high - low)[:, columns].max() < 1e-3


def test_the_clusters_are_these_with_any_version_of_the_libraries():
    """Features of whole sixteenths: a change here changes the selections that users published."""
    x = np.random.default_rng(5).integers(-3, 4, (600, 24)).astype(np.float16) / 16
    labels = spherical_kmeans(x, 20, 30, method="exact").labels
    digest = hashlib.blake2b(labels.astype("<i8").tobytes(), digest_size=8).hexdigest()
    assert digest == "7bd589173a4c75dd"


class Stop(Exception):
    pass


@pytest.mark.parametrize("method", ["exact", "projected"])
def test_a_killed_clustering_goes_on(mapped, method, tmp_path, monkeypatch):
    whole = spherical_kmeans(mapped, 40, 12, method=method, projection=32)
    monkeypatch.setattr(kept_centroids, "KEEP_EVERY", -1.0)
    checkpointer = Cache(tmp_path, {"made": "from"})
    assign, calls = assigner.Assigner.assign_to, []

    def watched(self, *args):
        calls.append(None)
        if len(calls) == 5:
            raise Stop
        return assign(self, *args)

    monkeypatch.setattr(assigner.Assigner, "assign_to", watched)
    arguments = {"method": method, "projection": 32, "checkpointer": checkpointer}
    with pytest.raises(Stop):
        spherical_kmeans(mapped, 40, 12, **arguments)
    again = spherical_kmeans(mapped, 40, 12, **arguments)
    assert len(calls) <= 5 + 9 + 1  # the iterations that were left, and the last assignment
    np.testing.assert_array_equal(again.labels, whole.labels)
    np.testing.assert_array_equal(again.centroids, whole.centroids)


@pytest.mark.parametrize("method", ["projected", "two_level"])
def test_fewer_dimensions_find_clusters_that_lie_apart(method):
    x, owner = mixture(groups=12, noise=0.05, width=256)
    labels = spherical_kmeans(x, 36, 30, method=method, projection=64).labels
    pure = [len(set(owner[labels == c].tolist())) <= 1 for c in range(36)]
    assert all(pure)


def test_the_sketch_keeps_inner_products():
    x, _ = mixture(n=200, width=5000)
    config = assigner.KMeansConfig(1, 0, 1 << 24, torch.device("cpu"))
    narrow = sketch(Rows(x), 512, config).values.astype(np.float64)
    error = narrow @ narrow.T - x.astype(np.float64) @ x.astype(np.float64).T
    assert abs(error.mean()) < 0.01
    assert error.std() < 1.5 / 512**0.5
    odd = sketch(Rows(x[:, :700]), 512, config).values.astype(np.float64)  # no multiple
    assert (odd @ odd.T - x[:, :700].astype(float) @ x[:, :700].T.astype(float)).std() < 0.02


def test_auto_goes_by_size_and_says_when_it_is_not_exact(caplog):
    assert choose_method(186_000, 20480, 2500, 50, 512) == "exact"
    assert not caplog.text
    assert choose_method(665_298, 20480, 10_000, 50, 512) == "projected"
    assert "other clusters than exact" in caplog.text
    assert choose_method(10**8, 20480, 1_500_000, 50, 512) == "two_level"
    assert choose_method(10**8, 512, 1_500_000, 50, 512) == "exact"


def test_trained_on_some_rows_all_are_assigned():
    x, _ = mixture()
    found = spherical_kmeans(x, 30, 20, fit_rows=400)
    cosines = x.astype(np.float64) @ found.centroids.T.astype(np.float64)
    np.testing.assert_array_equal(found.labels, cosines.argmax(1))
    assert (found.centroids != spherical_kmeans(x, 30, 20).centroids).any()
    with pytest.raises(SelectionError, match="fit_rows: 29 rows can't give 30 clusters"):
        spherical_kmeans(x, 30, fit_rows=29)


def test_collapse_and_restarts():
    same = np.ones((60, 24), np.float16) / 5
    with pytest.raises(SelectionError, match=r"collapsed: 5 of 5 centroids .* \(num_clusters\)"):
        spherical_kmeans(same, 5)
    assert spherical_kmeans(same, 1).diagnostics.collapsed == 0
    x = np.vstack([same, np.eye(24, dtype=np.float16)])
    with pytest.raises(SelectionError, match="collapsed"):
        spherical_kmeans(x, 20, 0, seed=8)
    found = spherical_kmeans(x, 20, 0, seed=8, restarts=60)
    assert found.seed > 8
    assert found.diagnostics.collapsed <= 0.5


def test_figures_of_a_clustering():
    centroids = np.array([[1, 0], [1, 0], [0, 1], [0.6, 0.8]], np.float32)
    labels = np.array([0, 0, 0, 2, 3, 3])
    figures = diagnostics(labels, centroids)
    assert (figures.clusters, figures.empty, figures.smallest, figures.largest) == (4, 1, 0, 3)
    assert figures.imbalance == pytest.approx(4 * (9 + 1 + 4) / 36)
    assert figures.collapsed == 0.5
    assert figures.nearest_maximum == pytest.approx(1)
    assert figures.nearest_median == pytest.approx((1 + 0.8) / 2)


@pytest.mark.parametrize("k", [1, 60])
def test_one_cluster_and_as_many_as_samples(k):
    x, _ = mixture(n=60)
    found = spherical_kmeans(x, k)
    assert len(set(found.labels.tolist())) == k


@pytest.mark.parametrize("method", ["exact", "projected"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_named(method, value):
    x, _ = mixture(n=200)
    x[117, 5] = value
    with pytest.raises(SelectionError, match="record 117 "):
        spherical_kmeans(x, 5, method=method, projection=16)
