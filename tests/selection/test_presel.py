"""Lost if these fail: tasks that owe much to the question, and what is typical of their images."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.data.record import Record
from coincide_pl.errors import SelectionError
from coincide_pl.selection import Pool, PreSel
from coincide_pl.selection.arrays.kmeans import spherical_kmeans


def pool(n, num_tasks, seed, text_only=0):
    """The first samples have no image."""
    random = np.random.default_rng(seed)
    features = random.normal(size=(n, 4))
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[:text_only] = 0
    records = [Record(str(i), (), (), f"task {random.integers(num_tasks)}") for i in range(n)]
    without = 1 + random.random(n)
    without[random.random(n) < 0.1] = 0  # empty answers
    signals = {
        "nll": (random.random(n) * without).astype(np.float32),
        "nll_without_question": without.astype(np.float32),
        "image_features": features.astype(np.float16),
    }
    return Pool(records, signals)


def apportioned(weights, limits, count):
    """By largest fractions, over and over what is left."""
    given = [0] * len(limits)
    while sum(given) < count:
        left, room = count - sum(given), [m - g for m, g in zip(limits, given, strict=True)]
        total = sum(w for w, r in zip(weights, room, strict=True) if r)
        due = [left * w / total if r else 0 for w, r in zip(weights, room, strict=True)]
        whole = [min(math.floor(d), r) for d, r in zip(due, room, strict=True)]
        given = [g + w for g, w in zip(given, whole, strict=True)]
        if all(d <= r for d, r in zip(due, room, strict=True)):
            spare = sorted(
                (g for g in range(len(due)) if given[g] < limits[g]),
                key=lambda g: (math.floor(due[g]) - due[g], g),
            )
            for group in spare[: left - sum(whole)]:
                given[group] += 1
    return given


@given(st.integers(8, 60), st.integers(1, 4), st.integers(0, 15), st.integers(0, 5), st.data())
@settings(max_examples=30, deadline=None)
def test_equals_the_plain_rule(n, num_tasks, seed, text_only, data):
    given = pool(n, num_tasks, seed, text_only)
    count = data.draw(st.integers(1, n))
    selector = PreSel(reference_fraction=0.2, cluster_fraction=0.1, num_neighbors=2, seed=3)
    selection = selector.select(given, count)
    chosen = selection.indices.tolist()
    names = sorted({record.source for record in given.records})
    rows = {
        name: [i for i in range(text_only, n) if given.records[i].source == name] for name in names
    }
    total = min(count, int(0.2 * (n - text_only)))
    sizes = [len(rows[name]) for name in names]
    drawn = apportioned(sizes, sizes, total)
    reference = chosen[:total]
    assert [sum(i in rows[name] for i in reference) for name in names] == drawn
    loss, without = (given.signals[k].astype(float) for k in ("nll", "nll_without_question"))
    x = given.signals["image_features"].astype(np.float64)
    importance = {}
    for name in names:
        for some in ([i for i in rows[name] if i in reference], rows[name]):
            ratios = [loss[i] / without[i] for i in some if without[i]]
            if ratios:
                importance[name] = np.mean(ratios)
                break
    rest = np.mean(list(importance.values())) if importance else 1.0
    weights = [math.exp(-importance.get(name, rest) * math.sqrt(len(names))) for name in names]
    left = [size - d for size, d in zip(sizes, drawn, strict=True)]
    numbers = apportioned(weights, left, min(count - total, sum(left)))
    expected = list(reference)
    for name, number in zip(names, numbers, strict=True):
        if not number:
            continue
        members = np.array(rows[name])
        k = max(1, int(0.1 * len(members)))
        labels = spherical_kmeans(given.signals["image_features"][members], k, 50, 3).labels
        groups = [
            [int(i) for i, label in zip(members, labels, strict=True) if label == c]
            for c in range(k)
        ]
        groups = [[i for i in group if i not in reference] for group in groups]
        each = apportioned([len(g) for g in groups], [len(g) for g in groups], number)
        for group, most in zip(groups, each, strict=True):
            unit = {i: x[i] / np.linalg.norm(x[i]) for i in group}
            typical = {}
            for i in group:
                cosines = sorted((unit[i] @ unit[j] for j in group if j != i), reverse=True)[:2]
                typical[i] = np.float32(np.mean(cosines)) if cosines else 0
            best = sorted(group, key=lambda i: -typical[i])[:most]
            mine = [i for i in chosen if i in group]
            np.testing.assert_allclose(
                sorted(typical[i] for i in mine), sorted(typical[i] for i in best), atol=1e-5
            )
            assert len(mine) == most
            expected += mine
    expected += range(text_only)
    assert sorted(chosen) == sorted(expected[:count])
    assert selection.clusters["selected"].sum() == count
    assert selection.clusters["size"].tolist() == [*sizes, text_only]


def test_all_samples_tell_the_importance_where_no_reference_set_is_drawn():
    given = pool(40, 2, 0)
    selection = PreSel(reference_fraction=0, cluster_fraction=0.1).select(given, 10)
    ratios = given.signals["nll"] / given.signals["nll_without_question"].clip(1e-9)
    for task in (0, 1):
        own = [
            i
            for i, record in enumerate(given.records)
            if record.source == f"task {task}" and given.signals["nll_without_question"][i]
        ]
        assert selection.clusters["importance"][task] == pytest.approx(ratios[own].mean(), 1e-5)


def test_an_answer_that_was_cut_off_tells_nothing():
    """Its loss of 0 is no loss: a task of long questions would seem the most important."""
    given = pool(40, 2, 0)
    lost = {**given.signals, "nll": given.signals["nll"].copy()}
    own = [i for i, r in enumerate(given.records) if r.source == "task 0"][:5]
    lost["nll"][own] = 0
    absent = {**lost, "nll_without_question": lost["nll_without_question"].copy()}
    absent["nll_without_question"][own] = 0
    found = [
        PreSel(reference_fraction=0, cluster_fraction=0.1).select(Pool(given.records, some), 10)
        for some in (lost, absent)
    ]
    assert np.array_equal(*[one.clusters["importance"] for one in found])


def test_a_low_temperature_keeps_to_the_most_important_task():
    """All weights vanish there, but not their ratios."""
    selection = PreSel(reference_fraction=0, cluster_fraction=0.1, temperature=1e-4).select(
        pool(40, 2, 0), 10
    )
    importance = selection.clusters["importance"][:2]
    assert selection.clusters["selected"][np.argmin(importance)] == 10


def test_same_inputs_same_selection_and_wrong_input_is_named():
    given = pool(40, 3, 0)
    first, second = (PreSel(cluster_fraction=0.2).select(given, 9).fingerprint for _ in range(2))
    assert first == second
    renamed = dict(given.signals)
    renamed["clip_image"] = renamed.pop("image_features")
    other = PreSel(cluster_fraction=0.2, features="clip_image").select(
        Pool(given.records, renamed), 9
    )
    assert other.indices.tolist() == PreSel(cluster_fraction=0.2).select(given, 9).indices.tolist()
    with pytest.raises(SelectionError) as error:
        PreSel().select(Pool(range(5)), 2)
    for words in ("--model.signals='[nll,nll_without_question]'", "--config models/dinov2"):
        assert words in str(error.value)
    for wrong in ({"reference_fraction": 2}, {"temperature": 0.0}, {"num_neighbors": 0}):
        with pytest.raises(SelectionError, match=next(iter(wrong))):
            PreSel(**wrong)


def test_images_that_are_all_the_same_are_named_with_an_option_that_there_is():
    given = pool(40, 1, 0)
    given.signals["image_features"][:] = given.signals["image_features"][0]
    with pytest.raises(SelectionError) as error:
        PreSel(cluster_fraction=0.2).select(given, 9)
    assert "source 'task 0': clustering collapsed" in str(error.value)
    assert "(cluster_fraction)" in str(error.value)
    assert "num_clusters" not in str(error.value)
    assert "restarts" not in str(error.value)
    assert len(PreSel(cluster_fraction=0.02).select(given, 9).indices) == 9  # the advice works
