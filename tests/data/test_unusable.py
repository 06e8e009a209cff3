"""Lost if these fail: data sets with some broken images or records, used without them."""

import json

import pytest
from PIL import Image

from coincide_pl.data.readers import LlavaJson, QuestionFile
from coincide_pl.errors import DataError


@pytest.fixture
def damaged(llava):
    """A file with a missing image, a broken one, an empty answer and what is no record."""
    items = json.loads(llava.read_text())
    items[3]["conversations"] = [{"from": "human", "value": "?"}, {"from": "gpt", "value": " "}]
    items[8] = 5
    llava.write_text(json.dumps(items))
    (llava.parent / "coco/0.png").write_bytes(b"")
    (llava.parent / "vg/1.png").unlink()
    return llava


def test_they_are_left_out_and_counted(damaged, tmp_path, caplog):
    caplog.set_level("INFO", logger="coincide_pl")
    items = json.loads(damaged.read_text())
    bad = [i for i, x in enumerate(items) if i not in (3, 8) and x.get("image") == "coco/0.png"]
    missing = [i for i, x in enumerate(items) if i not in (3, 8) and x.get("image") == "vg/1.png"]
    reader = LlavaJson(str(damaged), on_error="skip")
    records = reader.records(tmp_path / "cache")
    kept = sorted({*range(60)} - {3, 8, *bad, *missing})
    assert records.numbers.tolist() == kept
    assert [record.id for record in records] == [f"r{i}" for i in kept]
    assert records.name(5) == f"{damaged}: record {kept[5]} (id 'r{kept[5]}')"
    (line,) = [said for said in caplog.messages if "left out" in said]
    assert f"left out {60 - len(kept)} of 60 records" in line
    assert f"{len(bad)} with a broken image" in line
    assert f"{len(missing)} with a missing image" in line
    assert "1 malformed" in line
    assert "1 with nothing to train on" in line
    listed = records.path.with_suffix(".left_out.txt")
    assert line.endswith(str(listed))
    lines = listed.read_text().splitlines()
    assert len(lines) == 60 - len(kept)
    assert f"{damaged}: record 3 (id 'r3'): every answer is empty" in lines
    assert f"{damaged}: record {missing[0]} (id 'r{missing[0]}'): 'image': " in listed.read_text()
    reader.write_subset(records.numbers[[5, 2]], tmp_path / "subset.json")
    subset = json.loads((tmp_path / "subset.json").read_text())
    assert subset == [items[kept[5]], items[kept[2]]]


def test_an_image_that_is_mended_comes_back(damaged, tmp_path):
    reader = LlavaJson(str(damaged), on_error="skip")
    before = reader.records(tmp_path / "cache")
    assert reader.records(tmp_path / "cache").fingerprint == before.fingerprint
    Image.new("RGB", (9, 9)).save(damaged.parent / "vg/1.png")
    after = reader.records(tmp_path / "cache")
    assert len(after) > len(before)


def test_by_default_they_stop(damaged, tmp_path):
    with pytest.raises(DataError, match=r"record 3 \(id 'r3'\): every answer is empty"):
        LlavaJson(str(damaged)).records(tmp_path / "cache")


def test_nothing_left_is_an_error(tmp_path):
    (tmp_path / "data.json").write_text("[1, 2]")
    with pytest.raises(DataError, match="no record can be used; see"):
        LlavaJson(str(tmp_path / "data.json"), on_error="skip").records(tmp_path / "cache")


def test_questions_without_an_answer(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"question_id": 1, "text": "a?"}\n{"question_id": 2, "text": "b?", "answer": ""}'
    )
    with pytest.raises(DataError, match=r"record 0 .id '1'.: has no answer"):
        list(QuestionFile(str(path)))
    (record,) = QuestionFile(str(path), on_error="skip")
    assert record.turns[-1].text == ""  # to be scored, not trained on
