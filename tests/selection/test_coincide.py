"""Lost if these fail: the same picks as the authors' code, and exactly as many as asked for."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.selection import (
    All,
    Coincide,
    Pool,
    Random,
    Selection,
    budgets,
    density,
    greedy_mmd,
    pick,
    transferability,
)

PARITY = Path(__file__).parents[1] / "data" / "parity"


def plain_mmd(kernel, chosen):
    """The squared discrepancy of some samples from all, written out."""
    return kernel.mean() + kernel[np.ix_(chosen, chosen)].mean() - 2 * kernel[:, chosen].mean()


def plain_kernel(x, bandwidth=1.0):
    x = np.asarray(x, np.float64)
    return np.exp(-((x[:, None] - x[None]) ** 2).sum(-1) / (2 * bandwidth**2))


def plain_walk(s, d, sizes, count, temperature):
    """The authors' loop; may end short."""
    score = s / d
    p = np.exp(score / temperature)
    out, left, order = np.zeros(len(s), int), count, np.argsort(p)[::-1]
    for i, c in enumerate(order):
        want = round(left * p[c] / p[order[i:]].sum())
        out[c] = min(want, sizes[c])
        left -= out[c]
    return out


@pytest.mark.parametrize("name", ["selection_small", "selection_wide"])
@pytest.mark.parametrize("kind", [np.asarray, torch.from_numpy])
def test_picks_equal_the_authors_in_order(name, kind):
    case = np.load(PARITY / f"{name}.npz")
    picked = pick(
        kind(case["features"]),
        kind(case["labels"]),
        kind(case["transferability"]),
        fraction=float(case["fraction"]),
        temperature=float(case["temperature"]),
        bandwidth=float(case["bandwidth"]),
    )
    assert isinstance(picked, type(kind(case["labels"])))
    np.testing.assert_array_equal(np.asarray(picked), case["selected"])


def test_transferability_equals_the_authors():
    case = np.load(PARITY / "transferability.npz")
    ours = transferability(case["centroids"], num_layers=5)
    np.testing.assert_allclose(ours, case["transferability"], atol=1e-5)


def test_the_papers_plain_mean_is_one_setting_away():
    c = np.random.default_rng(0).normal(size=(6, 8))
    unit = c / np.linalg.norm(c, axis=1, keepdims=True)
    expected = ((unit @ unit.T).sum(1) - 1) / 5
    ours = transferability(c, num_layers=2, modality="both", exclude_above=None)
    np.testing.assert_allclose(ours, expected, atol=1e-6)


def test_memory_bound_changes_nothing():
    case = np.load(PARITY / "selection_small.npz")
    args = (case["features"], case["labels"], case["transferability"], 0.2)
    np.testing.assert_array_equal(pick(*args, memory=200_000), case["selected"])


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 24), st.integers(1, 6), st.integers(0, 10**6))
def test_greedy_equals_the_plain_rule(n, width, seed):
    random = np.random.default_rng(seed)
    x = random.normal(size=(n, width))
    count = int(random.integers(1, n + 1))
    kernel, picks = plain_kernel(x), []
    for best in greedy_mmd(x, count).tolist():
        others = [i for i in range(n) if i not in picks]
        mmd = {i: plain_mmd(kernel, [*picks, i]) for i in others}
        assert mmd[best] <= min(mmd.values()) + 1e-12  # equal candidates may come in any order
        picks.append(best)


@settings(max_examples=100, deadline=None)
@given(st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([0.01, 0.1, 1.0]))
def test_budgets_hold_the_official_walk_and_fill_up(k, seed, temperature):
    random = np.random.default_rng(seed)
    sizes = random.integers(0, 30, k)
    sizes[0] += 1
    s, d = random.uniform(0.1, 0.9, k), random.uniform(0.3, 1, k)
    count = int(random.integers(1, sizes.sum() + 1))
    ours = budgets(s, d, sizes, count, temperature)
    some = sizes > 0
    official = plain_walk(s[some], d[some], sizes[some], count, temperature)
    assert ours.sum() == count
    assert (ours <= sizes).all()
    assert (ours[some] >= official).all()


def test_density_is_the_mean_kernel_with_and_without_self():
    x = np.random.default_rng(0).normal(size=(9, 3))
    labels = np.array([0, 0, 0, 2, 2, 2, 2, 3, 3])
    k = plain_kernel(x[labels == 2])
    assert density(x, labels)[2] == pytest.approx(k.mean())
    assert density(x, labels, memory=64)[2] == pytest.approx(k.mean())
    assert density(x, labels, include_self=False)[2] == pytest.approx((k.sum() - 4) / 12)
    assert density(x, labels)[1] == 0


def features(n=400, layers=2, hidden=6, groups=8, seed=0):
    random = np.random.default_rng(seed)
    centers = random.normal(size=(groups, 2 * layers * hidden))
    x = centers[random.integers(0, groups, n)] + 0.3 * random.normal(size=(n, centers.shape[1]))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float16)


def pool(x, num_layers=2):
    return Pool(range(len(x)), {"activations": x}, {"data": "d", "signals": "s"}, num_layers)


@pytest.mark.parametrize("count", [1, 7, 80, 399, 400])
@pytest.mark.parametrize("k", [1, 8, 400])
def test_selects_exactly_the_count_once_each(count, k):
    selection = Coincide(num_clusters=k).select(pool(features()), count)
    assert len(np.unique(selection.indices)) == count == len(selection.indices)
    assert selection.clusters["selected"].sum() == count


def test_same_inputs_same_file(tmp_path):
    for name in ("a", "b"):
        Coincide(num_clusters=8).select(pool(features()), 80).save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read = Selection.load(tmp_path / "a")
    assert read.selector["init_args"]["num_clusters"] == 8
    assert read.made_from == {"data": "d", "signals": "s"}


def test_a_changed_or_truncated_file_is_refused(tmp_path):
    path = tmp_path / "selection"
    Random().select(Pool(range(50)), 10).save(path)
    content = bytearray(path.read_bytes())
    path.write_bytes(content[:-3])
    with pytest.raises(SelectionError, match="damaged"):
        Selection.load(path)
    content[-80] ^= 1
    path.write_bytes(content)
    with pytest.raises(SelectionError, match="selection"):
        Selection.load(path)


def test_collapse_is_seen():
    same = np.ones((50, 24), np.float16)
    with pytest.raises(SelectionError, match="collapsed"):
        Coincide(num_clusters=5).select(pool(same), 10)
    assert len(Coincide(num_clusters=1).select(pool(same), 10).indices) == 10


def test_wrong_input_is_named():
    x = features(50)
    with pytest.raises(SelectionError, match="60 clusters of 50"):
        Coincide(num_clusters=60).select(pool(x), 10)
    with pytest.raises(SelectionError, match="5 layers"):
        Coincide(num_clusters=4).select(pool(x[:, :21], 5), 10)
    x[17, 3] = np.nan
    with pytest.raises(SelectionError, match="record 17"):
        Coincide(num_clusters=4).select(pool(x), 10)
    with pytest.raises(SelectionError, match="coincide predict"):
        Coincide(num_clusters=4).select(Pool(range(50)), 10)
    with pytest.raises(SelectionError, match="temperature"):
        Coincide(num_clusters=4, temperature=0)
    for fraction in (0, -1, 1.5, float("nan"), 0.001):
        with pytest.raises(SelectionError, match="fraction"):
            pick(features(50), np.zeros(50, int), np.ones(1), fraction)


def test_random_and_all():
    assert Random(seed=3).select(Pool(range(50)), 20).indices.tolist() == (
        Random(seed=3).select(Pool(range(50)), 30).indices[:20].tolist()
    )
    assert All().select(Pool(range(5)), 5).indices.tolist() == [0, 1, 2, 3, 4]
    with pytest.raises(SelectionError, match="All selects all"):
        All().select(Pool(range(5)), 4)
