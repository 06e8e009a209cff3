"""Lost if these fail: the picks of message passing, by a heap as by a scan."""

import numpy as np
import pytest

from coincide_pl.errors import SelectionError
from coincide_pl.selection import D2Pruning, Pool


def pool(n=80, width=5, seed=0):
    random = np.random.default_rng(seed)
    signals = {
        "margin": random.uniform(-1, 1, n).astype(np.float32),
        "mean_token": random.normal(size=(n, width)).astype(np.float16),
    }
    return Pool(range(n), signals)


def plain(pool, count, k=5, gamma=0.4, keep="easy", normalize=True):
    """A scan for the highest, again and again."""
    x = pool.signals["mean_token"].astype(np.float64)
    if normalize:
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    squared = ((x[:, None] - x[None]) ** 2).sum(2)
    np.fill_diagonal(squared, np.inf)
    near = np.argsort(squared, 1)[:, :k]
    margin = pool.signals["margin"].astype(np.float64)
    start = np.maximum(margin, 0) if keep == "easy" else 1 - margin
    score = np.array(
        [start[i] + sum(np.exp(-squared[i, j]) * start[j] for j in near[i]) for i in range(len(x))]
    )
    picks = []
    while len(picks) < count:
        left = [i for i in range(len(x)) if i not in picks]
        best = max(left, key=lambda i: (score[i], -i))
        for j in near[best]:
            if j != best:
                score[j] -= np.exp(-gamma * squared[best, j]) * score[best]
        picks.append(best)
    return picks


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(
    "options",
    [{}, {"keep": "hard"}, {"normalize": False}, {"num_neighbors": 9, "gamma": 2.0}],
)
def test_equals_the_plain_rule(seed, options):
    given = pool(seed=seed)
    names = {"num_neighbors": "k"}
    expected = plain(given, 80, **{names.get(name, name): v for name, v in options.items()})
    for count in (1, 25, 80):
        chosen = D2Pruning(**options).select(given, count).indices
        assert chosen.tolist() == expected[:count]


def test_approximate_graphs_choose_as_many():
    given = pool(600)
    selector = D2Pruning(exact_below=100)
    chosen = selector.select(given, 200)
    assert len(set(chosen.indices.tolist())) == 200
    assert selector.select(given, 200).fingerprint == chosen.fingerprint
    exact = D2Pruning().select(given, 200).indices
    assert len(set(exact) & set(chosen.indices)) > 150


def test_equal_scores_go_by_row():
    x = np.eye(6, dtype=np.float32)
    given = Pool(range(6), {"margin": np.ones(6, np.float32), "mean_token": x})
    assert D2Pruning(num_neighbors=1).select(given, 3).indices[0] == 0
    nothing = Pool(range(6), {"margin": -np.ones(6, np.float32), "mean_token": x})
    assert D2Pruning().select(nothing, 4).indices.tolist() == [0, 1, 2, 3]


def test_wrong_input_is_named():
    with pytest.raises(SelectionError, match=r"--model.signals='\[margin,mean_token\]'"):
        D2Pruning().select(Pool(range(5)), 2)
    with pytest.raises(SelectionError, match=r"--model.signals='\[mean_token\]'"):
        D2Pruning().select(Pool(range(5), {"margin": np.zeros(5)}), 2)
    with pytest.raises(SelectionError, match="gamma: 0"):
        D2Pruning(gamma=0)
    with pytest.raises(SelectionError, match="num_neighbors: 0"):
        D2Pruning(num_neighbors=0)
