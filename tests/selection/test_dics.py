"""Lost if these fail: consistent samples, spread out as plain farthest-point sampling does."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.selection import Dics, Pool
from coincide_pl.selection.arrays import farthest
from coincide_pl.selection.arrays.rows import Rows


def plain_farthest(x, count):
    """Every distance to every pick, in full width."""
    x = x.astype(np.float64)
    picks = [int(np.argmax((x**2).sum(1)))] if count else []
    nearest = np.full(len(x), np.inf)
    while len(picks) < count:
        nearest = np.minimum(nearest, ((x - x[picks[-1]]) ** 2).sum(1).astype(np.float32))
        nearest[picks] = -1
        picks.append(int(nearest.argmax()))
    return picks


@given(st.integers(1, 70), st.integers(1, 5), st.integers(0, 20), st.data())
@settings(max_examples=40, deadline=None)
def test_farthest_points_equal_the_plain_rule(n, width, seed, data):
    """Whole numbers and copies: many rows are equally far away."""
    x = np.random.default_rng(seed).integers(-2, 3, (n, width)).astype(np.float16)
    count = data.draw(st.integers(0, n))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(farthest, "BATCH", data.draw(st.sampled_from([2, 7, 1024])))
        patch.setattr(farthest, "WIDTH", data.draw(st.sampled_from([1, 3, 256])))
        assert farthest.farthest_points(Rows(x), count).tolist() == plain_farthest(x, count)


def test_farthest_points_of_hidden_states(monkeypatch):
    """A large common mean, few directions: what makes bounds loose must not make them wrong."""
    random = np.random.default_rng(0)
    x = 20 + random.normal(size=(300, 6)) @ random.normal(size=(6, 40))
    x = (x + 0.1 * random.normal(size=x.shape)).astype(np.float16)
    monkeypatch.setattr(farthest, "BATCH", 16)
    monkeypatch.setattr(farthest, "WIDTH", 4)
    assert farthest.farthest_points(Rows(x), 150).tolist() == plain_farthest(x, 150)
    some = np.arange(0, 300, 3)
    found = farthest.farthest_points(Rows(x).subset(some), 40, seed=1).tolist()
    assert found == plain_farthest(x[some], 40)


def signals(n, seed=0):
    random = np.random.default_rng(seed)
    return {
        "visual_consistency": random.integers(1, 6, n).astype(np.float32),
        "response_consistency": random.integers(1, 6, n).astype(np.float32),
        "last_token": random.normal(size=(n, 4)).astype(np.float16),
    }


@pytest.mark.parametrize("n", [1, 2, 30, 31])
def test_every_share_equals_the_plain_rule(n):
    given = signals(n)
    worth = [min(pair) for pair in zip(*list(given.values())[:2], strict=True)]
    order = sorted(range(n), key=lambda row: (-worth[row], row))
    for count in range(1, n + 1):
        core = order[: max(0, 2 * count - n)]
        rest = sorted(order[len(core) : min(n, 2 * count)])
        if 2 * count == n:
            expected = order[:count]
        else:
            spread = plain_farthest(given["last_token"][rest], count - len(core))
            expected = core + [rest[at] for at in spread]
        assert Dics().select(Pool(range(n), given), count).indices.tolist() == expected


def test_same_inputs_same_selection_and_a_missing_signal_is_named():
    pool = Pool(range(40), signals(40))
    assert Dics().select(pool, 9).fingerprint == Dics().select(pool, 9).fingerprint
    words = r"--model.signals='\[visual_consistency,response_consistency,last_token\]'"
    with pytest.raises(SelectionError, match=words):
        Dics().select(Pool(range(5)), 2)
