"""Lost if these fail: reading every record as it is, and saying where a bad one stands."""

import json
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coincide_pl.data.readers import EasyVQA, LlavaJson
from coincide_pl.data.readers.findings import Findings
from coincide_pl.data.record import Turn
from coincide_pl.errors import DataError

TEXT = st.text(st.characters(exclude_categories=()), max_size=6) | st.sampled_from(
    ["<image>", "a <image> b", "coco/1.png", "/etc/x", "../x", ""]
)
SENDERS = st.sampled_from(["human", "gpt", "user", "assistant", "system"])
GOOD = {
    "id": "x",
    "image": "a/x.png",
    "conversations": [
        {"from": "human", "value": "<image>\nwhat?"},
        {"from": "gpt", "value": "that"},
    ],
}


def read(tmp_path, *items, **options):
    path = tmp_path / "data.json"
    path.write_text(json.dumps(items))
    return list(LlavaJson(str(path), **options))


def test_easy_vqa_is_whole():
    records = list(EasyVQA("train"))
    assert len(records) == 38575
    assert len({record.images for record in records}) == 4000
    assert {record.source for record in records} == {
        "shape yes/no",
        "colour yes/no",
        "which shape",
        "which colour",
    }
    test = EasyVQA("test")
    families = Counter(record.source for record in test)
    assert families["which shape"] + families["which colour"] == 2537
    assert sum(families.values()) == 9673
    assert all((test.image_root / record.images[0]).is_file() for record in test)


def test_llava_records(tmp_path):
    record, text, several = read(
        tmp_path,
        GOOD,
        {"id": 7, "conversations": [{"from": "system", "value": "Be brief."}, *TALK]},
        {**GOOD, "image": ["1.png", "2.png"], "task": "compare"},
        source_field=None,
    )
    assert record.id == "x"
    assert record.images == ("a/x.png",)
    assert record.source == "a"
    assert record.turns == (Turn("user", "<image>\nwhat?"), Turn("assistant", "that"))
    assert text.id == "7"
    assert text.images == ()
    assert text.source == "text"
    assert [turn.role for turn in text.turns] == ["system", "user", "assistant"]
    assert several.turns[0].text == "<image>\n<image>\nwhat?"  # the mark that was not there


TALK = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"conversations": None}, "no 'conversations'"),
        ({"conversations": []}, "no 'conversations'"),
        ({"conversations": [{"from": "bot", "value": "?"}]}, "'from' 'bot'; known are human"),
        ({"conversations": TALK[:1]}, "no answer"),
        ({"conversations": TALK[1:]}, "no turn is the user's"),
        ({"conversations": [*TALK, *TALK[1:]]}, "must alternate"),
        (
            {"conversations": [*TALK, {"from": "system", "value": "?"}]},
            "system turn must come first",
        ),
        ({"conversations": [TALK[0], {"from": "gpt", "value": " "}]}, "every answer is empty"),
        ({"conversations": [{"from": "human", "value": "<image> <image>"}, TALK[1]]}, "2 <image>"),
        ({"image": "../secret.png"}, "outside the image folder"),
        ({"image": "/etc/passwd"}, "outside the image folder"),
        ({"image": 3}, "'image' must be a path"),
        ({"id": [1]}, "'id' must be"),
        ({"id": "\ud800"}, "half a surrogate pair"),
    ],
)
def test_a_bad_record_is_named(tmp_path, change, said):
    with pytest.raises(DataError) as error:
        read(tmp_path, GOOD, {**GOOD, **change})
    assert f"{tmp_path}/data.json: record 1" in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "no records"),
        (b"[]", "no records"),
        (b"[{]", "record 0: not JSON"),
        (json.dumps([GOOD, GOOD])[:-9].encode(), "record 1: not JSON"),
        (json.dumps(GOOD).encode() + b"\n{oops", "record 1: not JSON"),
        (b'[{"id": "\xff"}]', "not UTF-8"),
        (b"[1]", "record 0: is a int"),
    ],
)
def test_a_bad_file_is_named(tmp_path, content, said):
    path = tmp_path / "data.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said) as error:
        list(LlavaJson(str(path)))
    assert str(path) in str(error.value)


def test_missing_files_are_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.json: no such data file"):
        LlavaJson(str(tmp_path / "nowhere.json"))
    (tmp_path / "data.json").write_text("[]")
    with pytest.raises(DataError, match="nowhere: no such image folder"):
        LlavaJson(str(tmp_path / "data.json"), str(tmp_path / "nowhere"))


KEYS = st.sampled_from(["id", "image", "conversations", "from", "value", "task_name", "other"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=6,
)
SAID = st.fixed_dictionaries({"from": SENDERS | JSON, "value": TEXT | JSON})
ITEM = st.fixed_dictionaries(
    {"conversations": st.lists(SAID, max_size=5) | JSON},
    optional={"id": JSON, "image": TEXT | st.lists(TEXT, max_size=3) | JSON, "task_name": JSON},
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEM | JSON, min_size=1, max_size=4))
def test_whatever_json_holds_becomes_records_or_a_named_error(tmp_path_factory, items):
    folder = tmp_path_factory.mktemp("items")
    path = folder / "data.json"
    path.write_text(json.dumps(items))
    reader = LlavaJson(str(path))
    findings = Findings()
    records = reader.survey(folder / "cache", findings)
    count = sum(len(item) if isinstance(item, list) and item else 1 for item in items)
    assert len(records) + len(findings.lines) == findings.count == count
    for line in findings.text():
        assert line.startswith(f"{path}: record ")
        assert line.endswith("\n")
        assert len(line.splitlines()) == 1
    for record in records:
        marks = sum(turn.text.count("<image>") for turn in record.turns if turn.role == "user")
        assert marks == len(record.images)
        assert {turn.role for turn in record.turns[-2::-2]} == {"user"}
        assert any(turn.text.strip() for turn in record.turns if turn.role == "assistant")
    if findings.lines:
        with pytest.raises(DataError, match="record "):
            list(reader)
    else:
        assert list(reader) == list(records)
    chosen = records.numbers[::-1]
    reader.write_subset(chosen, folder / "subset.json")
    if len(chosen):
        subset = list(LlavaJson(str(folder / "subset.json")))
        named = [record for record in records if record.id != str(record.number)]
        assert [record.turns for record in subset] == [record.turns for record in records][::-1]
        assert all(record in subset for record in named)


def test_records_are_read_once_and_again_when_the_file_changes(tmp_path, llava, monkeypatch):
    reader = LlavaJson(str(llava))
    first = reader.records(tmp_path / "cache")
    assert list(first) == list(reader)
    assert first[-1] == first[59]
    assert [r.id for r in first[3:5]] == ["r3", "r4"]
    with monkeypatch.context() as patch:
        patch.setattr(LlavaJson, "read", lambda *_: pytest.fail("read again"))
        assert reader.records(tmp_path / "cache").fingerprint == first.fingerprint
    moved = tmp_path / "elsewhere.json"
    moved.write_text(llava.read_text())
    again = LlavaJson(str(moved), str(llava.parent)).records(tmp_path / "cache")
    assert again.fingerprint == first.fingerprint  # the same data in another place
    items = json.loads(llava.read_text())
    items[0]["conversations"][1]["value"] = "green"
    llava.write_text(json.dumps(items))
    assert LlavaJson(str(llava)).records(tmp_path / "cache").fingerprint != first.fingerprint


def test_vision_flan(tmp_path):
    item = {**GOOD, "id": "VQA", "image": "VQA_1.jpg", "task_name": "VQA_counting"}
    assert read(tmp_path, item)[0].source == "VQA_counting"
    assert read(tmp_path, item, source_field="id")[0].source == "VQA"


def test_what_no_trainer_can_use_of_a_conversation_is_dropped(tmp_path, caplog):
    shown = {"from": "human", "value": "and <image>?"}
    (tmp_path / "data.json").write_text(
        json.dumps(
            [
                {**GOOD, "conversations": [TALK[1], *TALK]},
                {**GOOD, "conversations": [*TALK, shown], "image": ["1.png", "2.png"]},
            ]
        )
    )
    caplog.set_level("INFO", logger="coincide_pl")
    reader = LlavaJson(str(tmp_path / "data.json"))
    first, last = reader.records(tmp_path / "cache")
    assert first.turns == (Turn("user", "<image>\nhi"), Turn("assistant", "ho"))
    assert last.turns == first.turns
    assert last.images == ("1.png",)
    reader.records(tmp_path / "cache")
    assert caplog.text.count("1 conversations began with an answer, which was dropped") == 1
    assert caplog.text.count("1 conversations ended with a question, which was dropped") == 1


def test_subsets_keep_the_data_sets_own_format(tmp_path, llava):
    items = json.loads(llava.read_text())
    items[4]["license"] = {"kept": True}
    llava.write_text(json.dumps(items))
    LlavaJson(str(llava)).write_subset([7, 4], tmp_path / "subset.json")
    assert json.loads((tmp_path / "subset.json").read_text()) == [items[7], items[4]]
    easy = EasyVQA("test")
    easy.write_subset([5, 0], tmp_path / "easy.json")
    subset = LlavaJson(str(tmp_path / "easy.json"), str(easy.image_root), "source")
    everything = list(easy)
    assert list(subset) == [everything[5], everything[0]]
