"""Lost if these fail: choices for given tasks that follow the rules of LESS, ICONS and TIVE."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.data.record import UNNAMED, Record
from coincide_pl.errors import SelectionError
from coincide_pl.selection import Icons, Less, Pool, Tive
from coincide_pl.selection.methods.tive import scores
from coincide_pl.signals import SignalsStore, SignalsWriter
from coincide_pl.signals.manifest import Manifest, Origin, StoredSignal

D = 6


def manifest(count, model="warm", rate=None, names=("a", "b"), size=D, kinds=("gradient",)):
    """What a store of gradients says of itself."""
    arguments = {"size": size, "seed": 0, "target_modules": None}
    about = {
        kind: StoredSignal(kind, f"x.{kind}", arguments, None, [size], "float16") for kind in kinds
    }
    about["gradient_norm"] = StoredSignal("gradient_norm", "x.n", {}, None, [], "float32")
    about["task"] = StoredSignal("task", "x.t", {"names": list(names)}, None, [], "int32")
    noted = {"learning_rate": rate}
    return Manifest("data", count, model, "time:0", {}, noted, about, {})


def store(path, gradients, tasks, norms=None, **about):
    """A finished store of the gradients of some tasks' own data."""
    made = manifest(len(gradients), **about)
    SignalsWriter.create(path, made)
    writer = SignalsWriter(path, made)
    norms = np.ones(len(gradients)) if norms is None else norms
    values = {"gradient": gradients, "gradient_norm": norms, "task": np.asarray(tasks)}
    writer.write(np.arange(len(gradients)), values)
    writer.close()
    SignalsWriter.finish(path)
    return str(path)


def units(random, *shape):
    """Directions as a store holds them."""
    rows = random.normal(size=shape)
    return (rows / np.linalg.norm(rows, axis=-1, keepdims=True)).astype(np.float16)


def pool(*arrays, models=("warm",), rates=(None,), **signals):
    """A pool with the gradients of several checkpoints, or of one."""
    origins = [
        Origin(made := manifest(len(arrays[0]), model, rate), made.signals["gradient"])
        for model, rate in zip(models, rates, strict=True)
    ]
    return Pool(
        range(len(arrays[0])),
        {"gradient": arrays[0], **signals},
        several={"adam_gradient": arrays},
        origins={"adam_gradient": origins, "gradient": origins[:1]},
    )


def cosine(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    norms = np.linalg.norm(a) * np.linalg.norm(b)
    return float(a @ b / norms) if norms else 0.0


def best(wanted, count):
    """The rows with the highest numbers; rows that are equal but for rounding may change places."""
    return np.sort(np.asarray(wanted))[::-1][:count]


def chosen(wanted, picked, count):
    """Whether some rows are ones with the highest numbers, in that order."""
    assert len(set(picked.tolist())) == count
    np.testing.assert_allclose(np.asarray(wanted)[picked], best(wanted, count), atol=2e-3)


@given(st.integers(0, 2**31), st.integers(1, 3), st.integers(1, 12), st.booleans())
@settings(max_examples=25, deadline=None)
def test_less_is_its_rule(tmp_path_factory, seed, checkpoints, count, mean_gradient):
    random, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("less")
    models, rates = [f"m{i}" for i in range(checkpoints)], random.uniform(1, 5, checkpoints)
    train = [units(random, 12, D) for _ in models]
    tasks, norms = [0, 1, 1, 0, 1], random.uniform(1, 9, 5)
    others = [units(random, 5, D) for _ in models]
    paths = [
        store(folder / m, rows, tasks, norms, model=m)
        for m, rows in zip(models, others, strict=True)
    ]
    wanted = []
    for row in range(12):
        by_task = []
        for task in (0, 1):
            total = 0.0
            for rate, own, target in zip(rates, train, others, strict=True):
                z = [i for i in range(5) if tasks[i] == task]
                if mean_gradient:
                    total += rate * cosine(own[row], sum(norms[i] * target[i] for i in z))
                else:
                    total += rate * sum(cosine(own[row], target[i]) for i in z) / len(z)
            by_task.append(total / rates.sum())
        wanted.append(max(by_task))
    mean = "gradients" if mean_gradient else "cosines"
    for less in (Less(paths[::-1], mean=mean), Less(paths, [3 * r for r in rates], mean)):
        selection = less.select(pool(*train, models=models, rates=rates), count)
        chosen(wanted, selection.indices, count)
        assert sum(selection.figures["chosen for"].values()) == count


@given(st.integers(0, 2**31), st.integers(1, 20), st.sampled_from(["random", "influence", "row"]))
@settings(max_examples=25, deadline=None)
def test_icons_is_its_rule(tmp_path_factory, seed, count, ties):
    random, folder = np.random.default_rng(seed), tmp_path_factory.mktemp("icons")
    train, others = units(random, 20, D), units(random, 6, D)
    tasks = [0, 1, 2, 2, 1, 0]
    path = store(folder / "t", others, tasks, names=("a", "b", "c"))
    influence = np.array(
        [
            [np.mean([cosine(g, others[i]) for i in range(6) if tasks[i] == k]) for k in range(3)]
            for g in train
        ]
    )
    icons = Icons([path], ties=ties)
    first = icons.select(pool(train), count)
    votes = np.zeros(20, int)
    for column in influence.T:
        votes += column >= np.percentile(column, 100 - 100 * count / 20) - 1e-3
    sure = np.zeros(20, int)
    for column in influence.T:
        sure += column >= np.percentile(column, 100 - 100 * count / 20) + 1e-3
    if (votes == sure).all():  # rounding decides nothing
        chosen(votes, first.indices, count)
        left = [r for r in range(20) if r not in first.indices]
        last = votes[first.indices[-1]]
        tied = [r for r in first.indices if votes[r] == last]
        again = [r for r in left if votes[r] == last]
        if ties == "row" and again:
            assert max(tied) < min(again)
        if ties == "influence" and again:
            means = influence.mean(1)
            assert means[tied].min() > means[again].max() - 2e-3
    assert first.fingerprint == icons.select(pool(train), count).fingerprint
    assert len(set(first.indices.tolist())) == count


def test_which_of_as_many_votes_are_kept_is_drawn_anew_with_another_seed(tmp_path):
    random = np.random.default_rng(0)
    train = units(random, 200, D)
    path = store(tmp_path / "t", units(random, 4, D), [0, 0, 1, 1])
    found = [Icons([path], percent=80, seed=s).select(pool(train), 30).indices for s in (0, 0, 1)]
    assert (found[0] == found[1]).all()
    assert set(found[0]) != set(found[2])


def records(sources):
    return [Record(str(i), (), (), source) for i, source in enumerate(sources)]


@given(st.integers(0, 2**31), st.integers(1, 30), st.sampled_from([0.001, 5.0]))
@settings(max_examples=25, deadline=None)
def test_tive_is_its_rule(seed, count, q):
    random = np.random.default_rng(seed)
    sources = random.choice(["a", "b", None], 30).tolist()
    gradients, norms = units(random, 30, D), random.uniform(0.1, 4, 30).astype(np.float32)
    signals = {"gradient": gradients, "gradient_norm": norms}
    selection = Tive(q, seed=1).select(Pool(records(sources), signals), count)
    names = sorted({s or UNNAMED for s in sources})
    rows = {n: [i for i, s in enumerate(sources) if (s or UNNAMED) == n] for n in names}
    means = np.array([norms[rows[n]].astype(np.float64).mean() for n in names])
    taken = [len(set(rows[n]) & set(selection.indices.tolist())) for n in names]
    exact = means / means.sum() * count
    sizes = np.array([len(rows[n]) for n in names])
    if (exact <= sizes).all():
        assert (np.abs(np.array(taken) - exact) < 1).all()
    assert taken == selection.clusters["selected"].tolist()
    assert selection.figures["tasks"] == names
    task = np.array([names.index(s or UNNAMED) for s in sources])
    for i, found in enumerate(scores(gradients, task, len(names))):
        own = rows[names[task[i]]]
        np.testing.assert_allclose(
            found, np.mean([cosine(gradients[i], gradients[j]) for j in own]), atol=2e-3
        )
    again = Tive(q, seed=1).select(Pool(records(sources), signals), count)
    assert selection.fingerprint == again.fingerprint


def test_tive_draws_by_weight():
    """A task of 4: with q = 2 the share of first draws is softmax(2 · score)."""
    random = np.random.default_rng(0)
    gradients = units(random, 4, D)
    signals = {"gradient": gradients, "gradient_norm": np.ones(4, np.float32)}
    drawn = [
        int(Tive(2.0, seed=seed).select(Pool(records("aaaa"), signals), 1).indices[0])
        for seed in range(1000)
    ]
    weights = np.exp(2 * scores(gradients, np.zeros(4, int), 1))
    shares_drawn = np.bincount(drawn, minlength=4) / 1000
    np.testing.assert_allclose(shares_drawn, weights / weights.sum(), atol=0.06)


def test_tive_leaves_sources_out():
    random = np.random.default_rng(0)
    signals = {"gradient": units(random, 6, D), "gradient_norm": np.ones(6, np.float32)}
    selection = Tive(without=["a"]).select(Pool(records("aabbbb"), signals), 3)
    assert set(selection.indices.tolist()) < {2, 3, 4, 5}
    assert selection.clusters["size"].tolist() == [0, 4, 2]
    with pytest.raises(SelectionError, match="without: leaves 4 samples, and 5"):
        Tive(without=["a"]).select(Pool(records("aabbbb"), signals), 5)
    with pytest.raises(SelectionError, match="no record has the source 'c'"):
        Tive(without=["c"]).select(Pool(records("aabbbb"), signals), 3)


def test_targets_that_do_not_fit_are_named(tmp_path):
    random = np.random.default_rng(0)
    train = pool(units(random, 9, D))
    good = store(tmp_path / "good", units(random, 3, D), [0, 0, 1])
    same = store(tmp_path / "same", units(random, 3, D), [0, 0, 1])
    other = store(tmp_path / "other", units(random, 3, D), [0, 0, 1], model="another")
    wide = store(tmp_path / "wide", units(random, 3, 8), [0, 0, 1], size=8)
    for kind in (Less, Icons):
        with pytest.raises(SelectionError, match="name their stores"):
            kind([])
        with pytest.raises(SelectionError, match=r"targets: .*/nothing: no signals here"):
            kind([f"{tmp_path}/nothing"]).select(train, 3)
        with pytest.raises(SelectionError, match="none of the stores comes from the same warm-up"):
            kind([other]).select(train, 3)
        with pytest.raises(SelectionError, match="wide: its gradients were made with"):
            kind([good, wide]).select(train, 3)
        with pytest.raises(SelectionError, match="several stores have a task called 'a'"):
            kind([good, same]).select(train, 3)
        with pytest.raises(SelectionError, match="models/gradients"):
            kind([good]).select(Pool(range(9)), 3)
    two = pool(*[units(random, 9, D)] * 2, models=("warm", "another"), rates=(1.0, None))
    with pytest.raises(SelectionError, match="learning_rates: the warm-up did not note them"):
        Less([good, other]).select(two, 3)
    with pytest.raises(SelectionError, match="must be 2 positive numbers"):
        Less([good, other], [1.0]).select(two, 3)
    third = store(tmp_path / "third", units(random, 2, D), [0, 0], model="another", names=["c"])
    with pytest.raises(SelectionError, match="the tasks are a, b at one checkpoint, and c"):
        Less([good, third], [1.0, 1.0]).select(two, 3)


def test_a_store_whose_data_name_no_sources_is_one_task(tmp_path):
    random = np.random.default_rng(0)
    paths = [
        store(tmp_path / name, units(random, 3, D), [0, 0, 0], names=[UNNAMED])
        for name in ("vqa", "ocr")
    ]
    selection = Less(paths).select(pool(units(random, 9, D)), 4)
    assert set(selection.figures["chosen for"]) == {"vqa", "ocr"}
    assert SignalsStore(paths[0]).kinds == {"gradient", "gradient_norm", "task"}
