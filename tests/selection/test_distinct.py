"""Lost if these fail: budgets by distinct samples, picks far apart, at any scale and any count."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.selection import Distinct, Pool
from coincide_pl.selection.arrays.rows import MEMORY, Rows
from coincide_pl.selection.steps.distinct import STEPS, distinct_budgets, distinct_numbers
from coincide_pl.selection.steps.kernels import Kernel


def units(random, n, width, spread=1.0):
    x = 1 + spread * random.normal(size=(n, width))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def select(x, count, **options):
    return Distinct(**options).select(Pool(range(len(x)), {"activations": x}), count)


def plain_kernel(x, h):
    x = x.astype(np.float64)
    return np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / (2 * h**2))


def plain_numbers(x, labels, k, h):
    """Each sample counts for its part of those like it."""
    kernel = plain_kernel(x, h) * (labels[:, None] == labels)
    return np.bincount(labels, 1 / kernel.sum(1), k)


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 5), st.integers(0, 10**6))
def test_numbers_and_budgets_are_the_plain_rule(n, k, seed):
    random = np.random.default_rng(seed)
    x, labels = units(random, n, 5), random.integers(0, k, n)
    sizes = np.bincount(labels, minlength=k)
    numbers = distinct_numbers(Rows(x), labels, k, 1.0, MEMORY, "cpu")
    for step in (0, 1, 5, STEPS - 1):
        expected = plain_numbers(x, labels, k, 2 ** (-step / 2))
        np.testing.assert_allclose(numbers[:, step], expected, rtol=1e-7)
    pieces = distinct_numbers(Rows(x), labels, k, 1.0, 2000, "cpu")
    np.testing.assert_array_equal(pieces, numbers)
    count = int(random.integers(1, n + 1))
    shares, found, step = distinct_budgets(numbers, sizes, count)
    assert shares.sum() == count
    assert (shares <= sizes).all()
    if numbers[:, 0].sum() <= count <= numbers[:, -1].sum():
        assert found.sum() == pytest.approx(count)
        assert (np.abs(shares - found) < 1 + 1e-6).all()  # the whole numbers beside it
        low, high = (numbers[:, int(at)] for at in (np.floor(step), np.ceil(step)))
        assert (low - 1e-9 <= found).all()
        assert (found <= high + 1e-9).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(2, 24), st.integers(0, 10**6))
def test_picks_are_greedy_toward_the_flattened_distribution(n, seed):
    random = np.random.default_rng(seed)
    x = units(random, n, 4)
    count = int(random.integers(1, n + 1))
    selection = select(x, count, num_clusters=1)
    kernel = plain_kernel(x, selection.figures["bandwidth"])
    weights = 1 / kernel.sum(1)
    weights /= weights.sum()
    picked = []
    for best in selection.indices.tolist():
        mmd = {
            i: kernel[np.ix_(some, some)].mean() - 2 * (weights @ kernel[:, some]).mean()
            for i in set(range(n)) - set(picked)
            for some in [[*picked, i]]
        }
        assert mmd[best] <= min(mmd.values()) + 1e-12  # equal candidates may come in any order
        picked.append(best)
    assert len(picked) == count


def test_samples_without_likes_give_the_same_share_of_every_cluster():
    """As many of each as a random choice takes, but for rounding."""
    shares, found, _ = distinct_budgets(
        np.array([[1.0, 8.0, 20.0], [1.0, 40.0, 100.0], [1.0, 4.0, 10.0]]),
        np.array([20, 100, 10]),
        52,
    )
    assert shares.tolist() == [8, 40, 4]
    assert found.tolist() == [8.0, 40.0, 4.0]


def test_repeated_samples_count_once():
    """Sixty drawings of three originals give three; what is different fills the rest."""
    random = np.random.default_rng(0)
    originals, others = units(random, 3, 40), units(random, 30, 40)
    x = np.concatenate([np.repeat(originals, 20, 0), others])
    for k in (1, 3, None):
        chosen = select(x, 33, num_clusters=k).indices
        assert len(np.unique(x[chosen].astype(np.float32), axis=0)) == 33


def test_more_than_there_are_distinct_ones_are_still_as_many():
    x = np.repeat(units(np.random.default_rng(0), 4, 6), 10, 0)
    for count in (1, 3, 4, 17, 40):
        selection = select(x, count, num_clusters=2)
        assert len(set(selection.indices.tolist())) == count
        different = np.unique(x[selection.indices].astype(np.float32), axis=0)
        assert len(different) == min(count, 4)


def test_a_cluster_of_one_and_samples_that_are_all_alike():
    x = np.zeros((41, 3), np.float16)
    x[:40, 0], x[40, 1] = 1, 1
    selection = select(x, 10, num_clusters=2)
    assert 40 in selection.indices
    assert len(set(selection.indices.tolist())) == 10
    assert select(x[:40], 7, num_clusters=1).clusters["distinct"].tolist() == [1.0]


def test_scale_and_memory_do_not_matter():
    x = units(np.random.default_rng(1), 300, 8)
    whole = select(x, 60)
    assert whole.clusters["selected"].sum() == 60
    assert len(whole.clusters["size"]) == 4  # 66 samples a cluster
    narrow = select(x, 60, memory_gib=1e-5)
    assert narrow.indices.tolist() == whole.indices.tolist()
    longer = select(x * np.float16(8), 60)
    assert longer.indices.tolist() == whole.indices.tolist()
    assert longer.figures["bandwidth"] == 8 * whole.figures["bandwidth"]


def test_another_signal_and_what_is_wrong():
    x = units(np.random.default_rng(2), 50, 4)
    pool = Pool(range(50), {"last_token": x})
    assert len(Distinct("last_token", 5).select(pool, 12).indices) == 12
    with pytest.raises(SelectionError, match=r"Distinct needs .*signals='\[activations\]'"):
        Distinct().select(pool, 2)
    with pytest.raises(SelectionError, match="num_clusters: 0 must be positive"):
        Distinct(num_clusters=0)
    with pytest.raises(SelectionError, match="restarts: -1"):
        Distinct(restarts=-1)
    x[7] = np.nan
    with pytest.raises(SelectionError, match="record 7 "):
        Distinct("last_token", 5).select(pool, 12)


def test_a_narrower_kernel_is_the_square():
    x = units(np.random.default_rng(3), 20, 4, 0.1)
    wide = Kernel(Rows(x), 0.5).distinct(7)
    assert wide[6] == pytest.approx(Kernel(Rows(x), 0.0625).distinct(1)[0], rel=1e-12)
