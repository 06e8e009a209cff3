"""Lost if these fail: of every method exact counts, one choice each time, missing signals named."""

import inspect

import numpy as np
import pytest
from test_for_tasks import manifest, store, units

from coincide_pl import selection
from coincide_pl.data.record import UNNAMED, Record, Turn
from coincide_pl.errors import SelectionError
from coincide_pl.selection import HierarchicalKMeans, PerSource, Pool, PreSel, Selector, VisNec
from coincide_pl.selection.selector import name_of
from coincide_pl.signals.manifest import Origin

N, D = 60, 6
TEXTS = range(5, N, 6)
"""Samples without an image."""
METHODS = [
    kind
    for kind in (getattr(selection, name) for name in selection.__all__)
    if inspect.isclass(kind) and issubclass(kind, Selector) and kind not in (Selector, PerSource)
]
OPTIONS = {
    "HierarchicalKMeans": {"num_clusters": [6, 2]},
    "PreSel": {"cluster_fraction": 0.1},
    "Prism": {"text_only": "share"},  # else every sample without an image, also of one to pick
}


@pytest.fixture(scope="module")
def signals():
    """Every signal; what is of images is zero where there is none, or what it says of none."""
    random = np.random.default_rng(0)
    shown = np.ones(N, bool)
    shown[list(TEXTS)] = False
    wide = ("last_token", "mean_token", "instruction", "last_token_state", "clip_text")
    of_images = ("mean_image_token", "attended_image_token", "clip_image", "image_features")
    found = {name: units(random, N, D) for name in (*wide, *of_images, "gradient")}
    for name in of_images:
        found[name][~shown] = 0
    numbers = ("el2n", "nll", "margin", "difficulty", "gradient_norm", "nll_without_question")
    found |= {name: 1 + random.random(N) for name in numbers}
    found["nll_without_image"] = found["nll"] + shown * random.normal(size=N)
    found["bridging_relevance"] = shown * random.random(N)
    for name in ("visual_consistency", "response_consistency"):
        found[name] = np.where(shown, 2 * random.random(N), 1)
    found["clip_score"] = np.where(shown, random.random(N), -2)
    found["skill_neurons"] = random.integers(0, 3, (N, 4, 3)).astype(np.float32)
    found["token_spectrum"] = random.random((N, 2)).astype(np.float32)
    found["activations"] = np.concatenate(
        [shown[:, None] * units(random, N, D), found["last_token"]], 1
    )
    values = -np.sort(-random.random((2, N, 5)).astype(np.float32))
    found["cross_attention"] = values * shown[:, None]
    return found


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    return store(
        tmp_path_factory.mktemp("t") / "s", units(np.random.default_rng(1), 4, D), [0, 0, 1, 1]
    )


def made(kind, targets):
    """A method with options that suit 60 samples."""
    parameters = inspect.signature(kind).parameters
    options = {"num_clusters": 6} if "num_clusters" in parameters else {}
    options |= {"targets": [targets]} if "targets" in parameters else {}
    return kind(**options | OPTIONS.get(kind.__name__, {}))


def pool_of(kind, given, without=None):
    """The records, one in three of no named source, with the signals that a method needs."""
    sources = ["coco", None, "vg"]
    turns = (Turn("user", "?"), Turn("assistant", "!"))
    records = [Record(str(i), (), turns, sources[i % 3]) for i in range(N)]
    several = [name_of(one) for one in kind.several if name_of(one) != without]
    origin = Origin(about := manifest(N), about.signals["gradient"])
    return Pool(
        records,
        {name: values for name, values in given.items() if name not in (without, *several)},
        num_layers=1,
        several={
            name: [*given[name]] if name in given else [given["gradient"]] for name in several
        },
        origins={name: [origin] for name in ("gradient", "adam_gradient")},
    )


@pytest.mark.parametrize("kind", METHODS, ids=lambda kind: kind.__name__)
def test_counts_are_exact_the_choice_is_the_same_again_and_what_is_missing_is_named(
    kind, signals, targets
):
    method = made(kind, targets)
    for count in (1, 23, N) if kind is not selection.All else (N,):
        first, second = (method.select(pool_of(kind, signals), count) for _ in range(2))
        assert len(set(first.indices.tolist())) == len(first.indices) == count
        assert first.fingerprint == second.fingerprint
        if first.labels is not None:
            chosen = np.bincount(first.labels[first.indices], minlength=len(first.clusters["size"]))
            assert first.clusters["selected"].tolist() == chosen.tolist()
    for name in map(name_of, (*method.needs, *method.several)):
        with pytest.raises(SelectionError, match=rf"{kind.__name__} needs the signals {name}: `.*"):
            method.select(pool_of(kind, signals, without=name), 9)


@pytest.mark.parametrize("kind", [VisNec, PreSel, HierarchicalKMeans], ids=lambda k: k.__name__)
def test_a_number_where_rows_are_needed_names_the_option(kind, signals):
    option = "signal" if kind is HierarchicalKMeans else "features"
    method = kind(**{option: "el2n", **OPTIONS.get(kind.__name__, {})})
    for one, said in ((method, "^"), (PerSource(method), "source 'coco': ")):
        with pytest.raises(SelectionError, match=f"{said}{option}: the signal 'el2n' must be rows"):
            one.select(pool_of(kind, signals), 9)


@pytest.mark.parametrize("name", ["PerSource", "DataTailor", "PreSel", "Tive"])
def test_a_source_without_a_name_has_one_name(name, signals, targets):
    kind = getattr(selection, name)
    method = PerSource(selection.Random()) if kind is PerSource else made(kind, targets)
    figures = method.select(pool_of(kind, signals), 30).figures
    named = figures.get("counts") or figures.get("tasks")
    assert sorted(named) == sorted(["coco", "vg", UNNAMED])
