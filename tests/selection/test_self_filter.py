"""Lost if these fail: hard samples, and not the same twice."""

import numpy as np
import pytest

from coincide_pl.errors import SelectionError
from coincide_pl.selection import Pool, SelfFilter


def unit(rows):
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def pool(n=60, width=4, seed=0):
    random = np.random.default_rng(seed)
    image = unit(random.normal(size=(n, width)))
    image[::7] = 0  # samples without an image
    signals = {
        "difficulty": random.normal(size=n).astype(np.float32),
        "clip_image": image.astype(np.float16),
        "clip_text": unit(random.normal(size=(n, width))).astype(np.float16),
    }
    return Pool(range(n), signals)


def plain(pool, count, k=10, gamma=1.0):
    """All cosines, and a scan at every pick."""
    parts = [pool.signals[name].astype(np.float64) for name in ("clip_image", "clip_text")]
    x = unit(np.concatenate(parts, 1))
    cosines = x @ x.T
    difficulty = pool.signals["difficulty"].astype(np.float64)
    picks = []
    while len(picks) < count:
        left = [i for i in range(len(x)) if i not in picks]
        best = max(left, key=lambda i: (difficulty[i], -i))
        left.remove(best)
        for j in sorted(left, key=lambda j: -cosines[best, j])[:k]:
            difficulty[j] -= gamma * cosines[best, j] ** 2 * difficulty[best]
        picks.append(best)
    return picks


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("options", [{}, {"num_neighbors": 3, "gamma": 0.5}])
def test_equals_the_plain_rule(seed, options):
    given = pool(seed=seed)
    names = {"num_neighbors": "k"}
    expected = plain(given, 60, **{names.get(name, name): v for name, v in options.items()})
    for count in (1, 20, 60):
        chosen = SelfFilter(**options, num_candidates=60).select(given, count).indices
        assert chosen.tolist() == expected[:count]


def test_few_candidates_choose_as_many_and_the_same_again():
    given = pool(400)
    first = SelfFilter(num_candidates=12, exact_below=100).select(given, 150)
    assert len(set(first.indices.tolist())) == 150
    second = SelfFilter(num_candidates=12, exact_below=100).select(given, 150)
    assert second.fingerprint == first.fingerprint


def test_wrong_input_is_named():
    with pytest.raises(SelectionError) as error:
        SelfFilter().select(Pool(range(5)), 2)
    for text in (
        "`coincide fit --config models/self_filter` makes difficulty",
        "`coincide predict --config models/clip` makes clip_image, clip_text",
    ):
        assert text in str(error.value)
    with pytest.raises(SelectionError, match="num_candidates: 5 must be at least"):
        SelfFilter(num_candidates=5)
    with pytest.raises(SelectionError, match="gamma: -1"):
        SelfFilter(gamma=-1)
