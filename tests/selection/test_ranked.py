"""Lost if these fail: CLIPScore, EL2N and Perplexity keep what their papers keep."""

import numpy as np
import pytest

from coincide_pl.errors import SelectionError
from coincide_pl.selection import EL2N, CLIPScore, Perplexity, Pool

N = 40


def pool(name, scores):
    return Pool(range(len(scores)), {name: np.asarray(scores, np.float32)})


def plain(scores, count, part):
    """By a sort of (score, row) pairs."""
    pairs = sorted((float(s), row) for row, s in enumerate(scores))
    if part == "highest":
        return [row for _, row in sorted((-s, row) for s, row in pairs)][:count]
    start = 0 if part == "lowest" else (len(pairs) - count) // 2
    return [row for _, row in pairs[start : start + count]]


@pytest.mark.parametrize("count", [1, 7, N - 1, N])
@pytest.mark.parametrize("part", ["highest", "middle", "lowest"])
@pytest.mark.parametrize("selector", [EL2N, Perplexity])
@pytest.mark.parametrize("levels", [5, 10**6])  # few: many are equal
def test_parts_equal_a_plain_sort(selector, part, count, levels):
    scores = np.random.default_rng(count).integers(0, levels, N) / levels
    chosen = selector(keep=part).select(pool(selector.signals[0].name, scores), count).indices
    assert chosen.tolist() == plain(np.float32(scores), count, part)


def test_defaults_are_the_papers():
    scores = np.random.default_rng(0).random(N, np.float32)
    assert EL2N().select(pool("el2n", scores), 8).indices.tolist() == plain(scores, 8, "highest")
    chosen = Perplexity().select(pool("nll", scores), 8).indices
    assert chosen.tolist() == plain(scores, 8, "middle")
    assert EL2N().config["init_args"] == {"keep": "highest"}


def test_clip_scores_give_samples_without_image_the_median():
    scores = np.float32([0.1, 0.9, -2, 0.3, -0.2, -2, 0.3, 0.5])
    median = np.median([0.1, 0.9, 0.3, -0.2, 0.3, 0.5])
    filled = [median if s < -1 else s for s in scores]
    for count in range(1, 9):
        chosen = CLIPScore().select(pool("clip_score", scores), count).indices
        assert chosen.tolist() == plain(np.float32(filled), count, "highest")
    alone = CLIPScore().select(pool("clip_score", np.full(5, -2.0)), 3).indices
    assert alone.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("selector", "signal", "command"),
    [
        (EL2N, "el2n", "predict --config models/reference --model.signals='[el2n]'"),
        (Perplexity, "nll", "--model.signals='[nll]'"),
        (CLIPScore, "clip_score", "coincide predict --config models/clip"),
    ],
)
def test_a_missing_signal_names_the_command_that_makes_it(selector, signal, command):
    with pytest.raises(SelectionError) as error:
        selector().select(Pool(range(5)), 2)
    for text in (selector.__name__, signal, command, "data.signals"):
        assert text in str(error.value)
