"""Lost if these fail: a choice that keeps to each source's share, to exactly as many samples."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from coincide_pl.data.record import Record
from coincide_pl.errors import SelectionError
from coincide_pl.selection import (
    EL2N,
    Coincide,
    HierarchicalKMeans,
    Magic,
    PerSource,
    Picks,
    Pool,
    Prism,
    Random,
    Selector,
    SelfFilter,
    SemDeDup,
    Xmas,
)
from coincide_pl.selection.steps.apportioned import apportioned

NAMES = ["coco"] * 60 + ["vg"] * 30 + ["text"] * 10
ORDER = np.random.default_rng(0).permutation(100)


def pool(**signals):
    """A hundred records of three sources, in any order."""
    records = [Record(str(i), (), (), source=NAMES[at]) for i, at in enumerate(ORDER)]
    return Pool(records, signals)


def rows_of(source):
    return np.array([i for i, at in enumerate(ORDER) if NAMES[at] == source])


def counts(selection):
    return Counter(NAMES[ORDER[row]] for row in selection.indices)


@pytest.mark.parametrize(
    ("weights", "sizes", "count", "expected"),
    [
        ([60, 30, 10], [60, 30, 10], 20, [12, 6, 2]),
        ([1, 1, 1], [10, 10, 10], 10, [4, 3, 3]),  # the earlier one where remainders are equal
        ([1, 1, 1], [60, 30, 2], 20, [9, 9, 2]),  # one is taken whole, the others share the rest
        ([1, 1, 1], [60, 4, 2], 20, [14, 4, 2]),
        ([5, 1, 0], [3, 30, 10], 12, [3, 9, 0]),
        ([50, 49, 1], [50, 49, 1], 3, [2, 1, 0]),
        ([7, 2, 1], [7, 2, 1], 10, [7, 2, 1]),
        ([1, 1], [0, 5], 5, [0, 5]),
        ([0.1] * 7, [100] * 7, 100, [15, 15, 14, 14, 14, 14, 14]),
    ],
)
def test_a_count_divided_by_largest_remainders(weights, sizes, count, expected):
    found = apportioned(np.array(weights, float), np.array(sizes), count)
    assert found.tolist() == expected


def test_any_division_is_exact_and_fits():
    random = np.random.default_rng(0)
    for _ in range(500):
        parts = random.integers(1, 9)
        sizes, weights = random.integers(0, 30, parts), random.random(parts) ** 4
        if sizes.sum():
            count = int(random.integers(1, sizes.sum() + 1))
            found = apportioned(weights, sizes, count)
            assert found.sum() == count
            assert (found >= 0).all()
            assert (found <= sizes).all()


@pytest.mark.parametrize(
    ("shares", "expected"),
    [
        ("proportional", {"coco": 12, "vg": 6, "text": 2}),
        ("equal", {"coco": 7, "vg": 7, "text": 6}),
        ({"vg": 3, "coco": 1}, {"vg": 15, "coco": 5}),
    ],
)
def test_each_source_gets_its_share(shares, expected):
    scores = np.random.default_rng(1).random(100)
    selection = PerSource(EL2N(), shares).select(pool(el2n=scores), 20)
    found = counts(selection)
    assert sum(found.values()) == 20
    if shares == "equal":  # which of equal remainders is one more is told by the order of sources
        assert sorted(found.values()) == [6, 7, 7]
    else:
        assert found == expected
    for source, own in found.items():  # inside a source, the other selector's own choice
        best = sorted(rows_of(source), key=lambda row: -scores[row])[:own]
        assert [row for row in selection.indices if NAMES[ORDER[row]] == source] == best
    assert selection.figures["counts"] == {
        name: found[name] for name in selection.figures["counts"]
    }


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_clusters_of_a_source_are_those_of_it_alone(tmp_path, kind):
    features = np.random.default_rng(0).normal(size=(100, 8)).astype(np.float16)
    np.save(tmp_path / "x.npy", features)
    given = features if kind == "memory" else np.load(tmp_path / "x.npy", mmap_mode="r")
    selection = PerSource(SemDeDup(num_clusters=10)).select(pool(last_token=given), 20)
    assert counts(selection) == {"coco": 12, "vg": 6, "text": 2}
    first = 0
    for source in selection.figures["counts"]:
        clusters, rows = {"coco": 6, "vg": 3, "text": 1}[source], rows_of(source)
        own = SemDeDup(num_clusters=clusters).select(
            Pool(range(len(rows)), {"last_token": features[rows]}),
            selection.figures["counts"][source],
        )
        chosen = [row for row in selection.indices if NAMES[ORDER[row]] == source]
        assert chosen == rows[own.indices].tolist()
        assert (selection.labels[rows] == own.labels + first).all()
        assert selection.clusters["size"][first : first + clusters].tolist() == (
            own.clusters["size"].tolist()
        )
        first += clusters
    assert len(selection.clusters["size"]) == 10


def test_coincide_and_two_signals_side_by_side():
    random = np.random.default_rng(0)
    wide = random.normal(size=(100, 8)).astype(np.float16)
    given = Pool(pool().records, {"activations": wide}, num_layers=2)
    selection = PerSource(Coincide(num_clusters=10)).select(given, 20)
    assert counts(selection) == {"coco": 12, "vg": 6, "text": 2}
    both = pool(clip_image=wide, clip_text=wide[::-1].copy(), difficulty=random.random(100))
    assert counts(PerSource(SelfFilter()).select(both, 20)) == counts(selection)


class Changed(Selector):
    several = ("el2n",)

    def pick(self, pool, count):
        first, last = pool.several["el2n"]
        return Picks(np.argsort(first - last, kind="stable")[:count])


def test_a_signal_of_several_stores():
    random = np.random.default_rng(0)
    given = Pool(pool().records, several={"el2n": [random.random(100), random.random(100)]})
    assert counts(PerSource(Changed()).select(given, 20)) == {"coco": 12, "vg": 6, "text": 2}
    with pytest.raises(SelectionError, match="needs the signals el2n"):
        PerSource(Changed()).select(pool(), 20)


class Longest(Selector):
    signals = ()

    def pick(self, pool, count):
        ids = [int(record.id) for record in pool.records]
        assert ids == [int(pool.records[i].id) for i in range(len(pool))]
        return Picks(np.argsort(ids)[::-1][:count])


def test_a_selector_that_reads_records_sees_those_of_a_source():
    selection = PerSource(Longest()).select(pool(), 20)
    for source, own in counts(selection).items():
        chosen = [row for row in selection.indices if NAMES[ORDER[row]] == source]
        assert chosen == rows_of(source)[::-1][:own].tolist()


def test_what_it_was_made_by_is_in_the_file(tmp_path):
    made = PerSource(Random(seed=3), {"coco": 1.0}).select(pool(), 5)
    made.save(tmp_path / "s")
    assert made.load(tmp_path / "s").selector["init_args"] == {
        "selector": {"class_path": "coincide_pl.selection.Random", "init_args": {"seed": 3}},
        "shares": {"coco": 1.0},
    }
    assert PerSource(EL2N()).needs == EL2N.signals
    assert PerSource(Random()).needs == ()
    assert PerSource(Coincide(3)).by_all_processes
    assert not PerSource(Random()).by_all_processes


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"coco": 1, "vgg": 1}, "there is no source 'vgg'; known are"),
        ({"text": 1}, "the sources that have some hold 10 of 20"),
        ({"coco": -1}, "-1 of 'coco' must be a number from 0"),
        ({"coco": 0}, "no source has a weight"),
    ],
)
def test_wrong_shares_are_named(shares, said):
    with pytest.raises(SelectionError, match=said):
        PerSource(Random(), shares).select(pool(), 20)
    with pytest.raises(SelectionError, match="PerSource needs the signals el2n"):
        PerSource(EL2N()).select(pool(), 20)


def test_clusters_of_several_levels_are_shared_out_too():
    """Else a small source has fewer samples than clusters, and stops the run."""
    features = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float16)
    inner = HierarchicalKMeans(num_clusters=[20, 5], resamplings=[0, 1])
    selection = PerSource(inner).select(pool(activations=features), 30)
    assert counts(selection) == {"coco": 18, "vg": 9, "text": 3}
    assert [len(np.unique(selection.labels[rows_of(name)])) for name in ("coco", "vg", "text")] == [
        12,
        6,
        2,
    ]
    assert inner.num_clusters == [20, 5]


@pytest.mark.parametrize("by", ["memory", "file"])
def test_signals_of_more_than_a_number_or_a_row(tmp_path, by):
    """Neurons of layers, and singular values of which a part is read, as each source alone has."""
    random = np.random.default_rng(0)
    wide = {"skill_neurons": random.integers(0, 9, (100, 4, 3)).astype(np.float32)}
    wide |= {name: random.random((100, 6)).astype(np.float32) for name in ("first", "second")}
    if by == "file":
        for name, values in wide.items():
            np.save(tmp_path / f"{name}.npy", values)
            wide[name] = np.load(tmp_path / f"{name}.npy", mmap_mode="r")
    names = ("nll", "nll_without_image", "bridging_relevance")
    signals = {name: random.random(100) for name in names}
    signals["skill_neurons"] = wide["skill_neurons"]
    several = {"cross_attention": [wide["first"], wide["second"]]}
    given = replace(pool(**signals), several=several)
    for inner in (Magic(), Xmas(num_clusters=1)):
        selection = PerSource(inner).select(given, 20)
        for source, count in selection.figures["counts"].items():
            rows = rows_of(source)
            own = inner.select(
                Pool(
                    range(len(rows)),
                    {name: values[rows] for name, values in signals.items()},
                    several={"cross_attention": [one[rows] for one in several["cross_attention"]]},
                ),
                count,
            )
            chosen = [row for row in selection.indices if NAMES[ORDER[row]] == source]
            assert chosen == rows[own.indices].tolist()


def test_what_another_selector_advises_is_an_option_of_the_command():
    """Its own options stand one level deeper."""
    features = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float16)
    features[rows_of("vg")] = 0  # no images
    inner = Prism(text_only="all")
    with pytest.raises(SelectionError) as error:
        PerSource(inner).select(pool(mean_image_token=features), 20)
    assert "source 'vg'" in str(error.value)
    assert "give --data.selector.selector.text_only=share" in str(error.value)
    inner = Prism(text_only="share")
    selection = PerSource(inner).select(pool(mean_image_token=features), 20)
    assert counts(selection) == {"coco": 12, "vg": 6, "text": 2}
