"""Lost if these fail: an instruction set whose compositions are what they are said to be."""

import importlib
import random
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coincide_pl.data.readers import LlavaJson
from coincide_pl.data.record import Record
from coincide_pl.models.tiny import tiny_tokenizer
from coincide_pl.selection import Pool

FOLDER = Path(__file__).parents[2] / "experiments/compositions"


@pytest.fixture
def script(monkeypatch):
    """Imports a script of the experiment; gives what it defines."""
    monkeypatch.syspath_prepend(FOLDER)
    yield lambda name: vars(importlib.import_module(name))
    for name in ("scenes", "questions", "generate", "balanced", "clusters", "transfer", "proxies"):
        sys.modules.pop(name, None)


def test_the_same_data_from_the_same_seed(script, tmp_path):
    generate = script("generate")["generate"]
    for name, seed, jobs in (("a", 0, 1), ("b", 0, 2), ("c", 1, 2)):
        generate(str(tmp_path / name), count=300, evaluation=114, seed=seed, jobs=jobs)
    files = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
        }
        for name in "abc"
    }
    assert files["a"] == files["b"] != files["c"]


def test_long_tailed_training_and_balanced_test(script, tmp_path, command):
    script("generate")["generate"](str(tmp_path), count=1000, evaluation=228, jobs=1)
    shares = {}
    for split in ("train", "val", "test"):
        path = str(tmp_path / f"{split}.json")
        assert command("check", "--train=LlavaJson", f"--train.path={path}")[0] == 0
        records = LlavaJson(path, source_field="composition").records(tmp_path / "cache")
        shares[split] = Counter(records.sources)
        assert len(shares[split]) == 57
    assert set(shares["test"].values()) == set(shares["val"].values()) == {4}
    sizes = sorted(shares["train"].values(), reverse=True)
    assert sum(sizes[:10]) > 0.6 * sum(sizes)
    records = LlavaJson(str(tmp_path / "train.json"), source_field="composition").records(
        tmp_path / "cache"
    )
    asked = {}
    for record in records:
        asked.setdefault(record.source, []).append(record.turns)
    # Every second composition repeats a few originals.
    assert len(asked["digits-yes-or-no"]) > 64
    assert len(set(asked["digits-yes-or-no"])) <= 32
    assert len(set(asked["shapes-yes-or-no"])) > 64


def test_answers_are_right(script):
    """Told from the scenes, in the words of the questions."""
    questions = script("questions")
    rng, skills = random.Random(0), questions["SKILLS"]
    for concept, skill in questions["compositions"]() * 20:
        scene, asked = skills[skill](rng, concept)
        question, answer = asked[-1]
        assert len({thing.cell for thing in scene}) == len(scene)
        phrases = [thing.phrase for thing in scene]
        named = [thing for thing in scene if thing.phrase in question]
        if skill == "yes or no":
            assert answer == ("yes" if named else "no")
        elif skill == "locate":
            assert [thing.place for thing in named] == [answer]
        elif skill == "name":
            (named,) = [thing for thing in scene if thing.color in question]
            assert answer == named.name
        elif skill == "compare":
            (named,) = [t for t in scene if t.large == ("larger" in question)]
            assert answer == named.color
        elif skill == "caption":
            assert answer.startswith("a " + phrases[0])
            assert answer.endswith("a " + phrases[1])
            assert scene[0].cell < scene[1].cell
        elif skill == "odd one out":
            values = Counter([t.name for t in scene] + [t.color for t in scene])
            assert [v for v, n in values.items() if n == 1] == [answer]


def test_a_thing_is_drawn_where_it_is_said_to_be(script):
    scenes = script("scenes")
    for concept, about in scenes["CONCEPTS"].items():
        for name in about.names:
            thing = scenes["Thing"](concept, name, "blue", 5, True)
            pixels = np.asarray(scenes["draw"]((thing,), 0), float)
            blue = pixels[..., 2] - pixels[..., 0] > 100
            rows, columns = np.nonzero(blue)
            assert thing.place == "middle right"
            assert 14 <= rows.min() <= rows.max() <= 34
            assert columns.min() >= 30
            assert Image.fromarray(pixels.astype(np.uint8)).size == (48, 48)


def test_words_that_are_asked_for_are_single_tokens():
    words = ["surprised", "Q", "7"]
    plain, more = tiny_tokenizer(512), tiny_tokenizer(1024, words)
    for word in words:
        assert len(plain.tokenize(f" {word}")) > 1
        assert len(more.tokenize(f" {word}")) == 1


@pytest.mark.parametrize(("count", "sizes"), [(9, [2, 3, 4]), (14, [2, 6, 6]), (42, [2, 10, 30])])
def test_balanced_takes_as_many_of_each(script, count, sizes):
    names = ["few"] * 2 + ["some"] * 10 + ["many"] * 30
    pool = Pool([Record(str(i), (), (), name) for i, name in enumerate(names)])
    rows = script("balanced")["Balanced"](seed=3).pick(pool, count).indices
    assert len(set(rows.tolist())) == count
    assert sorted(Counter(names[row] for row in rows).values()) == sizes


def test_agreement_of_clusters_with_a_truth(script):
    agreement = script("clusters")["agreement"]
    truth = np.repeat([0, 1, 2], 40)
    assert agreement(2 - truth, truth) == pytest.approx((1, 1))
    nmi, purity = agreement(np.tile([0, 1], 60), truth)
    assert nmi == pytest.approx(0, abs=1e-9)
    assert purity == pytest.approx(1 / 3)
    _, purity = agreement(np.repeat([0, 1], 60), truth)
    assert purity == pytest.approx(2 / 3)


def test_a_correlation_over_pairs_leaves_out_a_cluster_with_itself(script):
    """Cosines of three layers' text halves that are what the transfer was made from."""
    of_pairs = script("transfer")["of_pairs"]
    rows = np.random.default_rng(0).normal(size=(40, 24))
    text = rows.reshape(40, 3, 2, 4)[:, :, 1].reshape(40, 12)
    unit = text / np.linalg.norm(text, axis=1, keepdims=True)
    said = unit @ unit.T
    np.fill_diagonal(said, -100)
    pearson, spearman = of_pairs(said, rows, "text", 3)
    assert (pearson[:5], spearman[:5]) == ("+1.00", "+1.00")
    assert abs(float(of_pairs(said, rows, "visual", 3)[0][:5])) < 0.3


def test_what_a_selection_covers(script):
    composition, original = (
        np.array([0] * 6 + [1] * 3 + [2]),
        np.array([0, 0, 1, 1, 2, 3, 4, 4, 4, 5]),
    )
    coverage, chosen, distinct = script("proxies")["covered"](
        np.array([0, 1, 4, 6, 7]), composition, original
    )
    assert coverage == pytest.approx(4 / 5)  # an even choice of five has two, two and one
    assert chosen == pytest.approx(np.log([4, 3, 1]).mean())
    assert distinct == pytest.approx(np.log([3, 2, 1]).mean())
