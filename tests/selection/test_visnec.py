"""Lost if these fail: of each kind of instruction, the answers that need their image most."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.errors import SelectionError
from coincide_pl.selection import Pool, VisNec
from coincide_pl.selection.arrays.kmeans import spherical_kmeans


def signals(n, seed, levels=4):
    """Few levels of loss: many samples need their image equally."""
    random = np.random.default_rng(seed)
    return {
        "nll": random.integers(0, levels, n).astype(np.float32),
        "nll_without_image": random.integers(0, levels, n).astype(np.float32),
        "instruction": random.normal(size=(n, 5)).astype(np.float16),
    }


@given(st.integers(1, 60), st.integers(1, 5), st.integers(0, 9), st.data())
@settings(max_examples=25, deadline=None)
def test_equals_the_plain_rule(n, clusters, seed, data):
    given, clusters = signals(n, seed), min(clusters, n)
    count = data.draw(st.integers(1, n))
    chosen = VisNec(num_clusters=clusters).select(Pool(range(n), given), count)
    labels = spherical_kmeans(given["instruction"], clusters, 50, 1234).labels
    need = given["nll_without_image"].astype(float) - given["nll"]
    exact = 0
    for cluster in range(clusters):
        members = [row for row in range(n) if labels[row] == cluster]
        members.sort(key=lambda row: (-need[row], row))
        kept = [row for row in members if row in set(chosen.indices.tolist())]
        assert kept == members[: len(kept)]
        assert count * len(members) // n <= len(kept) <= count * len(members) // n + 1
        exact += len(kept)
    assert exact == count
    assert chosen.clusters["selected"].sum() == count
    order = chosen.indices.tolist()
    assert order == sorted(order, key=lambda row: (-need[row], row))


def test_same_inputs_same_selection_and_the_features_are_an_option():
    given = signals(40, 0)
    given["clip_text"] = np.random.default_rng(1).normal(size=(40, 3)).astype(np.float16)
    pool = Pool(range(40), given)
    first, second = (VisNec(4).select(pool, 9).fingerprint for _ in range(2))
    assert first == second
    other = VisNec(4, features="clip_text").select(pool, 9)
    labels = spherical_kmeans(given["clip_text"], 4, 50, 1234).labels
    assert other.labels.tolist() == labels.tolist()


def test_wrong_input_is_named():
    with pytest.raises(SelectionError) as error:
        VisNec().select(Pool(range(5)), 2)
    assert "--model.signals='[nll,nll_without_image,instruction]'" in str(error.value)
    without_clip = Pool(range(5), signals(5, 0))
    with pytest.raises(SelectionError, match="predict --config models/clip` makes clip_text"):
        VisNec(2, features="clip_text").select(without_clip, 2)
    with pytest.raises(SelectionError, match="num_clusters: 0 must be positive"):
        VisNec(0)
