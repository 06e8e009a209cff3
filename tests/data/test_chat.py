"""Lost if these fail: Hugging Face data sets in the chat format, from disk and back."""

import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from coincide_pl.data.images import open_image
from coincide_pl.data.readers import ChatDataset
from coincide_pl.data.readers.findings import Findings
from coincide_pl.data.readers.tables import schema_of
from coincide_pl.data.record import Turn
from coincide_pl.errors import DataError

IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
PART = pa.struct([("type", pa.string()), ("text", pa.string())])
MESSAGE = pa.struct([("role", pa.string()), ("content", pa.list_(PART))])
FEATURES = {"images": [{"_type": "Image"}], "id": {"dtype": "int64", "_type": "Value"}}
SCHEMA = pa.schema(
    [
        ("id", pa.int64()),
        ("images", pa.list_(IMAGE)),
        ("messages", pa.list_(MESSAGE)),
        ("license", pa.map_(pa.string(), pa.int32())),
    ],
    metadata={"huggingface": json.dumps({"info": {"features": FEATURES}})},
)


def picture(number):
    file = io.BytesIO()
    Image.new("RGB", (5, 4), (number * 20, 0, 0)).save(file, "png")
    return file.getvalue()


def row(number):
    """A row with no, one or two embedded images, some of them shared."""
    shown = number % 3
    parts = [{"type": "image"}] * shown + [{"type": "text", "text": f"q{number}"}]
    return {
        "id": number,
        "images": [{"bytes": picture((number + k) % 4), "path": "x.png"} for k in range(shown)],
        "messages": [
            {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
            {"role": "user", "content": parts},
            {"role": "assistant", "content": [{"type": "text", "text": f"a{number}"}]},
        ],
        "license": [("kept", number)],
    }


ROWS = [row(number) for number in range(10)]


def table(rows):
    return pa.Table.from_pylist(rows, schema=SCHEMA)


def saved(folder, rows, name="data-00000-of-00001.arrow"):
    """As `save_to_disk` writes: Arrow streams that `state.json` names."""
    folder.mkdir(parents=True, exist_ok=True)
    with pa.OSFile(str(folder / name), "wb") as file, pa.ipc.new_stream(file, SCHEMA) as stream:
        stream.write_table(table(rows), max_chunksize=3)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name}]}))
    (folder / "dataset_info.json").write_text(json.dumps({"features": FEATURES}))


def hub(folder):
    """As a clone from the Hub lies: two Parquet files of one split, one of another."""
    (folder / "data").mkdir(parents=True)
    for name, rows in {
        "train-00000-of-00002": ROWS[:4],
        "train-00001-of-00002": ROWS[4:],
        "test-00000-of-00001": ROWS[:2],
    }.items():
        pq.write_table(table(rows), folder / f"data/{name}.parquet", row_group_size=3)


def splits(folder):
    """As `save_to_disk` writes several splits."""
    saved(folder / "train", ROWS)
    saved(folder / "test", ROWS[:2])
    (folder / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')


LAYOUTS = {"saved": lambda folder: saved(folder, ROWS), "hub": hub, "splits": splits}


@pytest.fixture(params=LAYOUTS)
def folder(request, tmp_path):
    """The same rows in one layout or another."""
    LAYOUTS[request.param](tmp_path / "set")
    return tmp_path / "set"


def test_every_layout_gives_the_same_records(folder, tmp_path):
    records = ChatDataset(str(folder)).records(tmp_path / "cache")
    assert [record.id for record in records] == [str(number) for number in range(10)]
    assert [turn.role for turn in records[5].turns] == ["system", "user", "assistant"]
    assert records[5].turns[1].text == "<image>\n<image>\nq5"
    assert records[5].images[0] == records[1].images[0]
    assert records[3].images == ()
    for record in records:
        colors = [open_image(records.image_root, i).getpixel((0, 0))[0] for i in record.images]
        assert colors == [(record.number + k) % 4 * 20 for k in range(record.number % 3)]
    assert len([path for path in records.image_root.rglob("*") if path.is_file()]) == 4
    saved(tmp_path / "other", ROWS)
    again = ChatDataset(str(tmp_path / "other")).records(tmp_path / "elsewhere")
    assert again.fingerprint == records.fingerprint
    file = records.name(9).split(": record ")[0]
    place = 5 if file.endswith("train-00001-of-00002.parquet") else 9
    assert records.name(9) == f"{file}: record {place} (id '9')"


def test_embedded_images_are_written_once_and_mended(tmp_path):
    saved(tmp_path / "set", ROWS)
    records = ChatDataset(str(tmp_path / "set")).records(tmp_path / "cache")
    first, second = (records.image_root / name for name in records[2].images)
    first.write_bytes(b"half")
    before = second.stat().st_mtime_ns
    records.path.unlink()
    ChatDataset(str(tmp_path / "set")).records(tmp_path / "cache")
    assert first.read_bytes() == picture(2)
    assert second.stat().st_mtime_ns == before


def test_a_subset_keeps_format_columns_and_order(folder, tmp_path):
    reader = ChatDataset(str(folder))
    target = tmp_path / ("part.parquet" if reader.files()[0].suffix == ".parquet" else "part")
    reader.write_subset([8, 0, 5], target)
    part = ChatDataset(str(target))
    assert list(part) == [list(reader)[number] for number in (8, 0, 5)]
    assert part.files()[0].suffix == reader.files()[0].suffix
    if target.is_dir():
        assert json.loads((target / "dataset_info.json").read_text()) == {"features": FEATURES}
        read = pa.ipc.open_stream(pa.memory_map(str(part.files()[0]))).read_all()
        with pytest.raises(DataError, match="part: is there already"):
            reader.write_subset([1], target)
    else:
        read = pq.read_table(target)
    assert read.schema.equals(schema_of(reader.files()[0]), check_metadata=True)
    assert read.to_pylist() == table([ROWS[n] for n in (8, 0, 5)]).to_pylist()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def talk(question, answer="yes"):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


@pytest.mark.parametrize(
    ("item", "images", "question"),
    [
        ({"messages": talk("<image>so?"), "images": ["a.png"]}, "a.png", "<image>so?"),
        ({"messages": talk("so?"), "image": "a.png"}, "a.png", "<image>\nso?"),
        ({"messages": talk("so?"), "images": None}, "", "so?"),
        ({"messages": talk([{"type": "image", "image": "b.png"}])}, "b.png", "<image>"),
        (
            {
                "messages": talk([{"text": "in "}, {"image": "b.png"}, {"text": "or"}]),
                "images": ["a.png"],
            },
            "a.png b.png",
            "<image>\nin \n<image>\nor",
        ),
        (
            {
                "messages": talk([{"type": "image", "index": 1}, {"type": "image", "index": 0}]),
                "images": ["a.png", {"path": "b.png"}],
            },
            "b.png a.png",
            "<image>\n<image>",
        ),
        (
            {"messages": talk([{"type": "image_url", "image_url": {"url": "file://{}/a.png"}}])},
            "a.png",
            "<image>",
        ),
        (
            {
                "conversations": [
                    {"from": "human", "value": "<image>\nso?"},
                    {"from": "gpt", "value": "yes"},
                ],
                "image": "a.png",
            },
            "a.png",
            "<image>\nso?",
        ),
        ({"conversations": talk("so?")}, "", "so?"),
    ],
)
def test_forms_of_messages(tmp_path, item, images, question):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps(item).replace("{}", str(tmp_path)) + "\n")
    (record,) = ChatDataset(str(path))
    assert record.images == tuple(images.split())
    assert record.turns == (Turn("user", question), Turn("assistant", "yes"))


@pytest.mark.parametrize(
    ("item", "said"),
    [
        ({}, "no 'messages'"),
        ({"messages": talk(3)}, "turn 0 must have a 'content' that is text"),
        ({"messages": talk([3])}, "a part of a message must be an object"),
        ({"messages": talk([{"type": "video"}])}, "a part is of type 'video'"),
        ({"messages": talk([{"type": "text"}])}, "must have a 'text'"),
        ({"messages": talk([{"type": "image"}])}, "shows image 1 of 0"),
        (
            {"messages": talk("so?", [{"image": "a.png"}])},
            "message of the assistant shows an image",
        ),
        ({"messages": talk("so?"), "images": ["../a.png"]}, "leads outside the image folder"),
        ({"messages": talk("so?"), "images": ["https://x/a.png"]}, "images must be on disk"),
        ({"messages": talk("so?"), "images": [4]}, "an image must be a path or bytes"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "turn 0 is 'role' 'tool'; known are"),
    ],
)
def test_a_bad_row_is_named(tmp_path, item, said):
    path = tmp_path / "data.jsonl"
    path.write_text(json.dumps({"messages": talk("hi")}) + "\n" + json.dumps({"id": "x", **item}))
    with pytest.raises(DataError) as error:
        list(ChatDataset(str(path)))
    assert str(error.value).startswith(f"{path}: record 1 (id 'x'): ")
    assert said in str(error.value)


def test_sources(tmp_path):
    def source(**item):
        (tmp_path / "data.jsonl").write_text(json.dumps({"messages": talk("so?"), **item}))
        return next(iter(ChatDataset(str(tmp_path / "data.jsonl")))).source

    assert source() == "text"
    assert source(image="coco/1.png") == "coco"
    assert source(image="coco/1.png", source="s", task_name="t") == "t"
    for name in ("one", "two"):
        (tmp_path / "sets" / name).mkdir(parents=True)
        pq.write_table(table(ROWS[1:2]), tmp_path / f"sets/{name}/train-00000-of-00001.parquet")
    assert [record.source for record in ChatDataset(str(tmp_path / "sets"))] == ["one", "two"]


def test_wrong_files_are_named(tmp_path):
    def refuse(said, *args):
        with pytest.raises(DataError, match=said):
            list(ChatDataset(*map(str, args)))

    refuse("nowhere: no such data file or folder", tmp_path / "nowhere")
    refuse("no .parquet, .arrow, .jsonl, .ndjson, .json files", tmp_path)
    hub(tmp_path / "hub")
    refuse("no files of split 'dev'; there are test, train", tmp_path / "hub", "dev")
    splits(tmp_path / "splits")
    refuse("no split 'dev'; there are test, train", tmp_path / "splits", "dev")
    (tmp_path / "splits/train/data-00000-of-00001.arrow").unlink()
    refuse("00001.arrow: no such data file", tmp_path / "splits")
    shard = tmp_path / "hub/data/train-00001-of-00002.parquet"
    shard.write_bytes(shard.read_bytes()[:-9])
    refuse("train-00001-of-00002.parquet: can't be read", tmp_path / "hub")
    shard.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refuse("a pointer of Git LFS; run git lfs pull", tmp_path / "hub")
    mixed = [ROWS[1], {**ROWS[2], "images": [{"path": "a.png"}] * 2}]
    saved(tmp_path / "mixed", mixed)
    refuse(
        "record 1 .id '2'.: an image is a path, where the first one is embedded", tmp_path / "mixed"
    )


TEXT = st.text(st.characters(exclude_categories=()), max_size=5) | st.sampled_from(
    ["<image>", "a <image> b", "a.png", "image", "text"]
)
KEYS = st.sampled_from(["role", "content", "type", "text", "image", "index", "path", "bytes"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3),
    max_leaves=5,
)
PARTS = st.lists(
    st.fixed_dictionaries(
        {"type": st.sampled_from(["image", "text"])},
        optional={"text": TEXT, "image": TEXT | JSON, "index": JSON},
    )
    | JSON,
    max_size=3,
)
MESSAGES = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "system"]), "content": TEXT | PARTS | JSON}
    ),
    max_size=4,
)
ITEM = st.fixed_dictionaries(
    {"messages": MESSAGES | JSON},
    optional={"id": JSON, "images": st.lists(TEXT | JSON, max_size=3) | JSON, "source": JSON},
)


@settings(max_examples=150, deadline=None)
@given(st.lists(ITEM | JSON, min_size=1, max_size=4))
def test_whatever_json_holds_becomes_records_or_a_named_error(tmp_path_factory, items):
    folder = tmp_path_factory.mktemp("rows")
    path = folder / "data.json"
    path.write_text(json.dumps(items))
    reader, findings = ChatDataset(str(path)), Findings()
    records = reader.survey(folder / "cache", findings)
    assert len(records) + len(findings.lines) == findings.count == len(items)
    assert all(line.startswith(f"{path}: record ") for line in findings.lines.values())
    for record in records:
        marks = sum(turn.text.count("<image>") for turn in record.turns if turn.role == "user")
        assert marks == len(record.images)
    if len(records):
        reader.write_subset(records.numbers[::-1], folder / "subset.json")
        subset = list(ChatDataset(str(folder / "subset.json")))
        assert [record.turns for record in subset] == [record.turns for record in records][::-1]
        assert [record.images for record in subset] == [record.images for record in records][::-1]
