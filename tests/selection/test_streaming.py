"""Lost if these fail: one selection whatever the memory, and the second for next to nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from coincide_pl.selection import Coincide, Pool, density, greedy_mmd
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.cache import Cache
from coincide_pl.selection.steps import cluster_order
from coincide_pl.selection.steps.cluster_order import ClusterOrder
from coincide_pl.selection.steps.kernels import Kernel, fits


def features(n=600, layers=2, hidden=12, groups=30, seed=0):
    random = np.random.default_rng(seed)
    centers = random.normal(size=(groups, 2 * layers * hidden))
    x = centers[random.integers(0, groups, n)] + 0.5 * random.normal(size=(n, centers.shape[1]))
    x[random.integers(0, n, n // 9)] = x[random.integers(0, n, n // 9)]  # some are the same
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def pool(x, folder=None, **more):
    cache = {} if folder is None else {"cache": Cache(folder, {})}
    return Pool(range(len(x)), {"activations": x}, {"signals": "s"}, 2, **cache, **more)


@pytest.fixture
def mapped(tmp_path):
    np.save(tmp_path / "x.npy", features())
    return np.load(tmp_path / "x.npy", mmap_mode="r")


@pytest.mark.parametrize("how", ["exact", "projected", "two_level"])
def test_memory_and_place_change_no_byte(mapped, tmp_path, how):
    files = []
    for memory, x in ((2.0, np.array(mapped)), (2.0, mapped), (2e-3, mapped), (1e-4, mapped)):
        selector = Coincide(20, clustering=how, projection=24, memory_gib=memory)
        selector.select(pool(x), 300).save(tmp_path / "selection")
        files.append((tmp_path / "selection").read_bytes())
    assert not fits(60, mapped.shape[1] * 2, int(1e-4 * 2**30))  # clusters larger than the bound
    assert len(set(files)) == 1


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 60), st.integers(0, 10**6))
def test_a_kernel_in_pieces_equals_the_whole(n, seed):
    x = features(n, groups=3, seed=seed)
    whole, pieces = Kernel(Rows(x), 1.0, 1 << 30), Kernel(Rows(x), 1.0, 9000)
    assert whole.whole is not None
    assert pieces.whole is None or n < 30
    np.testing.assert_array_equal(pieces.means, whole.means)
    picks = whole.greedy(n)
    np.testing.assert_array_equal(pieces.greedy(n), picks)
    assert sorted(picks.tolist()) == list(range(n))


def test_of_equal_samples_the_first_is_picked():
    x = features(40, groups=4)
    twice = np.vstack([x, x])
    picks = greedy_mmd(twice, 80).tolist()
    for i in range(40):
        assert picks.index(i) < picks.index(i + 40) or (x == x[i]).all(1).sum() > 1


def test_another_fraction_reads_no_features(mapped, tmp_path):
    expected = {
        (count, tau): Coincide(20, tau).select(pool(np.array(mapped)), count)
        for count, tau in ((90, 0.1), (300, 0.1), (300, 0.5))
    }
    Coincide(20).select(pool(mapped, tmp_path / "kept"), 90)
    broken = np.full_like(mapped, np.nan)
    for (count, tau), selection in expected.items():
        again = Coincide(20, tau).select(pool(broken, tmp_path / "kept"), count)
        assert again.fingerprint == selection.fingerprint


def test_a_larger_fraction_extends_the_picks_of_each_cluster(mapped, tmp_path):
    small, large = (Coincide(20).select(pool(mapped, tmp_path), c) for c in (90, 300))
    (file,) = tmp_path.glob("clusters-*.safetensors")
    owner = load_file(file)["labels"]
    for cluster in range(20):
        few, many = ([i for i in s.indices if owner[i] == cluster] for s in (small, large))
        if (
            len(many) < small.clusters["size"][cluster]
        ):  # one that is taken whole is in record order
            assert many[: len(few)] == few


def test_a_larger_budget_than_known_is_learned(mapped, tmp_path):
    """Clusters that do not fit in memory are put in order only as far as it is wanted."""
    place = {"memory_gib": 3e-4}
    first = Coincide(3, **place).select(pool(mapped, tmp_path), 40)
    second = Coincide(3, **place).select(pool(mapped, tmp_path), 400)
    fresh = Coincide(3).select(pool(mapped), 400)
    assert first.fingerprint == Coincide(3).select(pool(mapped), 40).fingerprint
    assert second.fingerprint == fresh.fingerprint


class Stop(Exception):
    pass


def test_killed_while_reading_clusters_it_goes_on(mapped, tmp_path, monkeypatch):
    whole = Coincide(20).select(pool(np.array(mapped)), 300)
    monkeypatch.setattr(cluster_order, "KEEP_EVERY", -1.0)
    read, calls = ClusterOrder._read, []

    def watched(*args):
        calls.append(args[1])
        if len(calls) == 17:
            raise Stop
        read(*args)

    monkeypatch.setattr(ClusterOrder, "_read", watched)
    with pytest.raises(Stop):
        Coincide(20, memory_gib=1.5e-4).select(pool(mapped, tmp_path), 300)
    again = Coincide(20, memory_gib=1.5e-4).select(pool(mapped, tmp_path), 300)
    assert len(calls) < 17 + 20
    assert again.fingerprint == whole.fingerprint


def test_damaged_or_foreign_files_of_the_cache_are_not_used(mapped, tmp_path):
    whole = Coincide(20).select(pool(mapped, tmp_path), 300)
    files = sorted(tmp_path.glob("*.safetensors"))
    assert len(files) == 4
    for file in files:
        content = bytearray(file.read_bytes())
        content[-9] ^= 4
        file.write_bytes(content)
    assert Coincide(20).select(pool(mapped, tmp_path), 300).fingerprint == whole.fingerprint
    for file in files:
        file.write_bytes(file.read_bytes()[:-20])
    assert Coincide(20).select(pool(mapped, tmp_path), 300).fingerprint == whole.fingerprint


def test_a_cache_that_can_not_be_written_costs_a_warning(mapped, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    selection = Coincide(20).select(pool(mapped, tmp_path / "file" / "folder"), 300)
    assert len(selection.indices) == 300
    assert "it would be computed again" in caplog.text


@pytest.mark.parametrize("count", [1, 2, 5, 599, 600])
def test_so_few_that_most_clusters_get_nothing_and_so_many_that_all_are_taken(mapped, count):
    selection = Coincide(200).select(pool(np.array(mapped)), count)
    assert len(np.unique(selection.indices)) == count
    assert selection.clusters["selected"].sum() == count
    assert selection.figures["clusters"] == 200
    assert selection.figures["clustering"] == "exact"


def test_densities_without_self_from_the_same_means():
    x, labels = features(60, groups=3), np.arange(60) % 3
    order = ClusterOrder(Rows(x), labels, 3)
    order.learn()
    for with_self in (True, False):
        np.testing.assert_array_equal(
            density(order, labels, include_self=with_self),
            density(x, labels, include_self=with_self),
        )
