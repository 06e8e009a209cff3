"""Lost if these fail: PRISM's and ScalSelect's picks, exactly, without a matrix of all pairs."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.selection import Pool, Prism, ScalSelect
from coincide_pl.selection.arrays import centered
from coincide_pl.selection.arrays.centered import Centered
from coincide_pl.selection.arrays.rows import Rows
from coincide_pl.selection.cache import Cache
from coincide_pl.selection.methods.prism import redundancy
from coincide_pl.selection.methods.scal_select import leverage

METHODS = [(Prism, "mean_image_token"), (ScalSelect, "attended_image_token")]


def features(n=60, width=5, seed=0, texts=()):
    """Rows with a mean far from zero; zero where a sample has no image."""
    random = np.random.default_rng(seed)
    rows = (3 + random.normal(size=(n, width)) * random.uniform(0.2, 3, width)).astype(np.float16)
    rows[list(texts)] = 0
    return rows


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch):
    monkeypatch.setattr(centered, "NUMBERS", 40)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 40), st.integers(1, 7), st.integers(0, 99), st.data())
def test_redundancy_is_the_mean_cosine_with_the_others(n, width, seed, data):
    texts = data.draw(st.sets(st.integers(0, n - 1), max_size=n - 2))
    x = features(n, width, seed, texts)
    shown = [row for row in range(n) if x[row].any()]
    apart = x[shown].astype(np.float64) - x[shown].astype(np.float64).mean(0)
    unit = apart / np.maximum(np.linalg.norm(apart, axis=1, keepdims=True), 1e-300)
    plain = [
        np.mean([unit[i] @ unit[j] for j in range(len(shown)) if j != i] or [0])
        for i in range(len(shown))
    ]
    found = redundancy(Centered.of(Rows(x)))
    # Rows that equal the mean but for rounding have a direction in the plain statement alone.
    sure = np.linalg.norm(apart, axis=1) > 1e-9
    np.testing.assert_allclose(found[sure], np.array(plain)[sure], atol=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(8, 40), st.integers(1, 7), st.integers(0, 99), st.floats(0.1, 0.99))
def test_leverage_is_that_of_a_singular_value_decomposition(n, width, seed, energy):
    x = features(n, width, seed).astype(np.float64)
    u, s, _ = np.linalg.svd(x - x.mean(0), full_matrices=False)
    share = np.cumsum(s**2) / np.sum(s**2)
    k = int(np.searchsorted(share, energy)) + 1
    found = leverage(Centered.of(Rows(x.astype(np.float16))), energy)
    if abs(share - energy).min() > 1e-9:
        assert found["directions"] == k
        np.testing.assert_allclose(found["scores"], (u[:, :k] ** 2).sum(1), atol=1e-6)


def test_the_least_redundant_are_kept_and_every_text():
    x = features(texts=(3, 50))
    shown = np.flatnonzero(x.any(1))
    order = shown[np.argsort(redundancy(Centered.of(Rows(x))), kind="stable")]
    pool = Pool(range(60), {"mean_image_token": x})
    assert Prism().select(pool, 20).indices.tolist() == [*order[:18], 3, 50]
    assert Prism(text_only="none").select(pool, 20).indices.tolist() == order[:20].tolist()
    highest = Prism("highest", "none").select(pool, 20).indices
    assert set(highest.tolist()) == set(order[-20:].tolist())


def test_the_highest_leverage_is_kept_and_no_text():
    x = features(texts=(3, 50))
    shown = np.flatnonzero(x.any(1))
    scores = leverage(Centered.of(Rows(x)), 0.9)["scores"]
    selection = ScalSelect().select(Pool(range(60), {"attended_image_token": x}), 20)
    assert selection.indices.tolist() == shown[np.argsort(-scores, kind="stable")][:20].tolist()
    assert selection.figures["directions"] >= 1


@pytest.mark.parametrize(("method", "signal"), METHODS)
@pytest.mark.parametrize(("text_only", "expected"), [("all", 12), ("share", 6), ("none", 0)])
def test_as_many_texts_as_asked_for(method, signal, text_only, expected):
    texts = range(0, 60, 5)
    pool = Pool(range(60), {signal: features(texts=texts)})
    chosen = method(text_only=text_only).select(pool, 30).indices
    assert len(set(chosen.tolist()) & set(texts)) == expected
    every = method(text_only=text_only).select(pool, 60).indices
    assert sorted(every.tolist()) == list(range(60))
    assert len(method(text_only="none").select(pool, 55).indices) == 55  # 48 have an image


@pytest.mark.parametrize(("method", "signal"), METHODS)
def test_same_inputs_same_selection_and_equal_rows_by_number(method, signal):
    x = features(30)
    pool = Pool(range(60), {signal: np.concatenate([x, x])})
    first, second = (method().select(pool, 21).indices.tolist() for _ in range(2))
    assert first == second
    assert first[:20:2] == [row - 30 for row in first[1:20:2]]
    same = Pool(range(60), {signal: np.ones((60, 5), np.float16)})
    assert method().select(same, 7).indices.tolist() == list(range(7))


@pytest.mark.parametrize(("method", "signal"), METHODS)
def test_wrong_input_is_named(method, signal):
    with pytest.raises(SelectionError, match=rf"needs .*--model.signals='\[{signal}\]'"):
        method().select(Pool(range(5)), 2)
    x = features()
    x[7, 2] = np.nan
    with pytest.raises(SelectionError, match="record 7 hold NaN"):
        method().select(Pool(range(60), {signal: x}), 2)
    texts = Pool(range(60), {signal: features(texts=range(9))})
    with pytest.raises(SelectionError, match="the 9 samples without an image are more than the 8"):
        method(text_only="all").select(texts, 8)
    with pytest.raises(SelectionError, match="energy: 0 is outside"):
        ScalSelect(0)


def test_a_step_done_before_is_taken_as_it_was(tmp_path):
    """The number that the step keeps came back as an array of one, and the second seed stopped."""
    pool = Pool(
        range(60), {"attended_image_token": features()}, cache=Cache(tmp_path, {"data": "this"})
    )
    first = ScalSelect().select(pool, 12)
    (kept,) = tmp_path.iterdir()
    written = kept.stat().st_mtime_ns
    again = ScalSelect().select(pool, 12)
    assert kept.stat().st_mtime_ns == written
    np.testing.assert_array_equal(first.indices, again.indices)
    assert first.figures == again.figures
