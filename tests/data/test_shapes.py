"""Lost if these fail: reading each tool's records as its own documentation shows them."""

import io
import json
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from coincide_pl.data.images import open_image
from coincide_pl.data.readers import ChatDataset, LlavaJson
from coincide_pl.data.readers.json_text import json_items
from coincide_pl.data.readers.shapes import as_chat
from coincide_pl.errors import DataError

FORMATS = Path(__file__).parent / "formats"
IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


@pytest.fixture
def formats(tmp_path):
    """A small file of each format, in a folder that may be changed."""
    return Path(shutil.copytree(FORMATS, tmp_path / "formats"))


def picture(red):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (red, 0, 0)).save(file, "png")
    return {"bytes": file.getvalue(), "path": None}


def spoken(record):
    return [(turn.role, turn.text) for turn in record.turns]


def reds(records):
    """The color of each record's images."""
    root = records.image_root
    return [[open_image(root, i).getpixel((0, 0))[0] for i in r.images] for r in records]


LLAVA = {
    "llava_images.json": (
        [[60], [60, 120], [120, 180], []],
        "<image>\n<image>\nWhich is lighter?",
    ),
    "sharegpt4v.json": ([[60]], None),
    "qwen_vl.json": ([[60], [120, 180]], "<image>\n<image>\nWhat are the main differences?"),
    "qwen_vl_packed.json": ([[60], [120], [180]], "<image>\nSecond?"),
}


@pytest.mark.parametrize("name", LLAVA)
def test_llavas_form(formats, tmp_path, name):
    colors, second = LLAVA[name]
    reader = LlavaJson(str(formats / name))
    records = reader.records(tmp_path / "cache")
    assert reds(records) == colors
    assert second is None or records[1].turns[0].text == second
    numbers = records.numbers[::-1]
    reader.write_subset(numbers, formats / "back.json")
    back = LlavaJson(str(formats / "back.json"))
    assert [(r.images, r.turns) for r in back] == [(r.images, r.turns) for r in records][::-1]


@pytest.mark.parametrize("packed", [".gz", ".zst"])
@pytest.mark.parametrize("name", ["llava.json", "internvl.jsonl"])
def test_compressed_files(formats, packed, name):
    path = formats / f"{name}{packed}"
    with pa.output_stream(path, compression="gzip" if packed == ".gz" else "zstd") as file:
        file.write((formats / name).read_bytes().replace(b"\n", b"\r\n"))
    assert [*json_items(path)] == [*json_items(formats / name)]
    reader = LlavaJson(str(path), str(formats / "images") if "internvl" in name else None)
    reader.write_subset([1, 0], formats / "back.jsonl")
    assert [*json_items(formats / "back.jsonl")] == [*json_items(path)][1::-1]
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(DataError, match="can't be read"):
        list(json_items(path))


CHAT = {
    "mllm_demo.json": [
        ("user", "<image>Who are they?"),
        ("assistant", "They're two players."),
        ("user", "What are they doing?"),
        ("assistant", "They are celebrating."),
    ],
    "sharegpt.json": [
        ("system", "Answer in a word."),
        ("user", "Hi, <image>what is it?"),
        ("assistant", "A square."),
        ("user", "And its color?"),
        ("assistant", "Red."),
    ],
    "alpaca.json": [
        ("system", "Be brief."),
        ("user", "Are you there?"),
        ("assistant", "Yes."),
        ("user", "<image>Describe the picture.\nIn one word."),
        ("assistant", "Red."),
    ],
    "swift_messages.jsonl": [
        ("system", "You are helpful."),
        ("user", "<image><image>What is the difference?"),
        ("assistant", "The second is lighter."),
    ],
    "swift_query.jsonl": [
        ("system", "You are helpful."),
        ("user", "<image>55555"),
        ("assistant", "66666"),
    ],
    "swift_sharegpt.jsonl": [
        ("system", "You are helpful."),
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
        ("assistant", "a2"),
    ],
    "openai.jsonl": [
        ("system", "You identify squares."),
        ("user", "What color is this?\n<image>"),
        ("assistant", "Red."),
    ],
}


@pytest.mark.parametrize("name", CHAT)
def test_the_chat_forms(formats, tmp_path, name):
    reader = ChatDataset(str(formats / name))
    records = reader.records(tmp_path / "cache")
    assert spoken(records[0]) == CHAT[name]
    images = 2 if name == "swift_messages.jsonl" else 0 if name == "swift_sharegpt.jsonl" else 1
    assert reds(records)[0] == [60, 120][:images]
    target = formats / f"back{Path(name).suffix}"
    reader.write_subset(records.numbers[::-1], target)
    assert list(json_items(target)) == list(json_items(formats / name))[::-1]
    back = ChatDataset(str(target)).records(tmp_path / "cache")
    assert spoken(back[-1]) == CHAT[name]


CAULDRON = {
    "images": [picture(60), picture(120)],
    "texts": [
        {"user": "Which is lighter?", "assistant": "The second.", "source": "spot"},
        {"user": "Are you sure?", "assistant": "Yes.", "source": "spot"},
    ],
}
FINEVISION = {
    "images": [picture(180)],
    "texts": [{"user": "What is it?", "assistant": "A square."}],
    "source": "captcha",
    "relevance_ratings": [5],
    "relevance_min": 5,
}
ONEVISION = {
    "id": "q1",
    "image": picture(120),
    "conversations": [
        {"from": "human", "value": "<image>\nWhat is it?"},
        {"from": "gpt", "value": "A square."},
    ],
    "data_source": "chart2text",
}
TABLES = {
    "cauldron": (CAULDRON, [60, 120], "image", "<image>\n<image>\nWhich is lighter?"),
    "finevision": (FINEVISION, [180], "captcha", "<image>\nWhat is it?"),
    "onevision": (ONEVISION, [120], "chart2text", "<image>\nWhat is it?"),
}


@pytest.mark.parametrize("name", TABLES)
def test_the_hubs_tables(tmp_path, name):
    row, colors, source, question = TABLES[name]
    (tmp_path / name).mkdir()
    table = pa.Table.from_pylist([row, row])
    for key in ("images", "image"):
        if key in row:
            kind = IMAGE if key == "image" else pa.list_(IMAGE)
            place = table.column_names.index(key)
            table = table.set_column(place, key, table[key].cast(kind))
    pq.write_table(table, tmp_path / name / "train-00000-of-00001.parquet")
    reader = ChatDataset(str(tmp_path / name))
    records = reader.records(tmp_path / "cache")
    assert reds(records) == [colors] * 2
    assert records[0].source == source
    assert records[0].turns[0].text == question
    assert [turn.role for turn in records[0].turns] == ["user", "assistant"] * (
        len(row.get("texts", "x"))
    )
    reader.write_subset([1], tmp_path / "back.parquet")
    back = ChatDataset(str(tmp_path / "back.parquet")).records(tmp_path / "cache")
    assert list(back) == [records[1]] or name == "onevision" or back[0].turns == records[1].turns
    assert pq.read_table(tmp_path / "back.parquet").to_pylist() == table.to_pylist()[1:]


def test_what_marks_of_places_stand_for_is_named(formats):
    with pytest.raises(DataError, match=r"record 0: .*'objects' is not read"):
        list(ChatDataset(str(formats / "swift_grounding.jsonl")))


def test_other_names_of_columns_and_senders(tmp_path):
    row = {
        "dialog": [{"who": "A", "says": "<image>hi"}, {"who": "B", "says": "ho"}],
        "pics": ["a.png"],
        "rules": "Be brief.",
    }
    (tmp_path / "x.jsonl").write_text(json.dumps(row))
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png")
    reader = ChatDataset(
        str(tmp_path / "x.jsonl"),
        columns={"messages": "dialog", "images": "pics", "system": "rules"},
        tags={"role_tag": "who", "content_tag": "says", "user_tag": "A", "assistant_tag": "B"},
    )
    (record,) = reader
    assert record.images == ("a.png",)
    assert spoken(record) == [("system", "Be brief."), ("user", "<image>hi"), ("assistant", "ho")]
    with pytest.raises(DataError, match="columns: 'pictures' is unknown; known are prompt"):
        ChatDataset(str(tmp_path / "x.jsonl"), columns={"pictures": "pics"})


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({"texts": [{"user": "hi"}]}, "'texts': pair 0 must have 'user' and 'assistant'"),
        ({"texts": {"user": "hi"}}, "'texts' must be a list"),
        ({"query": "hi", "response": "ho", "history": [["a"]]}, "pair 0 must be two texts"),
        ({"instruction": ["hi"], "output": "ho"}, "'instruction' must be text"),
        ({"instruction": "hi", "output": ["ho", "hu"]}, "a part of a message must be an object"),
        ({"query": "hi", "images": ["data:image/png;base64,@@"], "response": "ho"}, "not base64"),
        ({"query": "hi"}, "turn 1 must have a 'content' that is text"),
    ],
)
def test_a_bad_row_is_named(tmp_path, item, said):
    (tmp_path / "x.jsonl").write_text(json.dumps(item))
    with pytest.raises(DataError, match=said) as error:
        ChatDataset(str(tmp_path / "x.jsonl")).records(tmp_path / "cache")
    assert str(error.value).startswith(f"{tmp_path}/x.jsonl: record 0")


def test_a_row_of_messages_stays_as_it_is():
    row = {"messages": [{"role": "user", "content": "hi"}], "query": "not read", "history": []}
    assert as_chat(row, {}, {}) is row
