"""Lost if these fail: the shapes in which people's files come, read as they are meant or named."""

import gzip
import json
import unicodedata

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from coincide_pl.data.image_states import file_states
from coincide_pl.data.images import open_image
from coincide_pl.data.readers import ChatDataset, LlavaJson, QuestionFile
from coincide_pl.data.record import Turn
from coincide_pl.errors import DataError

TALK = [{"from": "human", "value": "hi"}, {"from": "gpt", "value": "ho"}]
CHAT = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]
TURNS = (Turn("user", "hi"), Turn("assistant", "ho"))


def read(tmp_path, *items, reader=LlavaJson, name="data.json", **options):
    (tmp_path / name).write_text(json.dumps(items))
    return list(reader(str(tmp_path / name), **options))


@pytest.mark.parametrize("name", ["x.json.gz", "x.jsonl.gz", "x.ndjson", "x.ndjson.gz", "x.jsonl"])
def test_compressed_files_and_lines_are_read_and_written(tmp_path, name):
    items = [{"id": i, "conversations": TALK} for i in range(3)]
    text = json.dumps(items) if ".json." in name else "\n".join(map(json.dumps, items))
    content = gzip.compress(text.encode()) if name.endswith(".gz") else text.encode()
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / name).write_bytes(content)
    for reader in (LlavaJson, ChatDataset):
        assert [record.id for record in reader(str(tmp_path / "data" / name))] == ["0", "1", "2"]
    folder = ChatDataset(str(tmp_path / "data"))
    assert len(list(folder)) == 3
    folder.write_subset([2, 0], tmp_path / "subset.json")
    assert [r.id for r in ChatDataset(str(tmp_path / "subset.json"))] == ["2", "0"]


def test_a_compressed_file_that_is_cut_is_named(tmp_path):
    path = tmp_path / "x.json.gz"
    whole = gzip.compress(json.dumps([{"conversations": TALK}] * 99).encode())
    for content in (whole[:-20], b"no gzip", whole[:20] + b"\0" * 20 + whole[40:]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"x\.json\.gz: ") as error:
            list(LlavaJson(str(path)))
        assert "\n" not in str(error.value)


def test_the_right_reader_is_named(tmp_path):
    for item, reader, right in (
        ({"messages": CHAT}, LlavaJson, "but 'messages': ChatDataset reads that"),
        ({"question_id": 1, "text": "so?"}, LlavaJson, "'question_id': QuestionFile reads that"),
        ({"question_id": 1, "text": "so?"}, ChatDataset, "'question_id': QuestionFile reads that"),
        ({"conversations": TALK}, QuestionFile, "but 'conversations': LlavaJson reads that"),
        ({"messages": CHAT}, QuestionFile, "but 'messages': ChatDataset reads that"),
    ):
        with pytest.raises(DataError, match=right):
            read(tmp_path, item, reader=reader)
    pq.write_table(pa.table({"id": [1]}), tmp_path / "x.parquet")
    for path in (tmp_path, tmp_path / "x.parquet"):
        for reader in (LlavaJson, QuestionFile):
            with pytest.raises(DataError, match="not JSON; ChatDataset reads folders, Parquet"):
                reader(str(path))


def test_senders_may_be_capitalized(tmp_path):
    talk = [{"from": "Human", "value": "hi"}, {"from": "GPT", "value": "ho"}]
    assert read(tmp_path, {"conversations": talk})[0].turns == TURNS
    talk = [{"role": "USER", "content": "hi"}, {"role": "Assistant", "content": "ho"}]
    assert read(tmp_path, {"messages": talk}, reader=ChatDataset)[0].turns == TURNS


def test_messages_may_be_json_text(tmp_path):
    for reader, field, talk in (
        (LlavaJson, "conversations", TALK),
        (ChatDataset, "messages", CHAT),
        (ChatDataset, "conversations", TALK),
    ):
        assert read(tmp_path, {field: json.dumps(talk)}, reader=reader)[0].turns == TURNS
        for text in ("[{]", "[" * 100_000, '["a"]', "[]", "hi"):
            with pytest.raises(DataError, match="record 0: "):
                read(tmp_path, {field: text}, reader=reader)
    table = pa.table({"messages": [json.dumps(CHAT)] * 2, "videos": pa.array([None, None])})
    pq.write_table(table, tmp_path / "x.parquet")
    assert [record.turns for record in ChatDataset(str(tmp_path / "x.parquet"))] == [TURNS] * 2


def test_columns_of_numbers_are_named(tmp_path):
    for column in ("messages", "conversations", "images", "image"):
        columns = {"messages": [CHAT]} if "image" in column else {}
        columns |= {"id": [7], column: [3]}
        pq.write_table(pa.table(columns), tmp_path / "x.parquet")
        with pytest.raises(DataError, match=r"record 0 \(id '7'\): "):
            list(ChatDataset(str(tmp_path / "x.parquet")))
    pq.write_table(pa.table({"messages": [CHAT], "task": [3]}), tmp_path / "x.parquet")
    (record,) = ChatDataset(str(tmp_path / "x.parquet"), source_field="task")
    assert record.source == "3"


def test_columns_of_media_are_not_passed_over(tmp_path):
    table = pa.table({"messages": [CHAT] * 2, "videos": [[], ["a.mp4"]], "tools": ["", None]})
    pq.write_table(table, tmp_path / "x.parquet")
    with pytest.raises(DataError, match="record 1: 'videos' holds media that are not read"):
        list(ChatDataset(str(tmp_path / "x.parquet")))


@pytest.mark.parametrize("deep", ['{"id": %s}', '[{"conversations": %s}]'])
def test_what_is_nested_too_deeply_is_named(tmp_path, deep):
    nested = "[" * 100_000 + "]" * 100_000
    (tmp_path / "data.json").write_text(deep % nested)
    for reader in (LlavaJson, ChatDataset, QuestionFile):
        with pytest.raises(DataError, match=r"data.json: record .*: not JSON: nested too deeply"):
            list(reader(str(tmp_path / "data.json")))


def test_names_of_files_need_not_tell_a_split(tmp_path, caplog):
    table = pa.table({"messages": [CHAT]})
    for name in ("llava-00000-of-00002.parquet", "llava-00001-of-00002.parquet", "0003.parquet"):
        pq.write_table(table, tmp_path / name)
    assert len(list(ChatDataset(str(tmp_path)))) == 3
    pq.write_table(table, tmp_path / "train-00000-of-00001.parquet")
    assert len(list(ChatDataset(str(tmp_path)))) == 1
    assert "1 files tell no split and are not read" in caplog.text
    assert len(list(ChatDataset(str(tmp_path), split="llava"))) == 2
    with pytest.raises(DataError, match="no files of split 'test'; there are llava, train"):
        ChatDataset(str(tmp_path), split="test")


def test_accented_names_are_found_however_they_are_composed(tmp_path):
    composed = unicodedata.normalize("NFC", "café.png")
    taken_apart = unicodedata.normalize("NFD", composed)
    for written, asked in ((composed, taken_apart), (taken_apart, composed)):
        path = tmp_path / written
        Image.new("RGB", (3, 2)).save(path)
        assert open_image(tmp_path, asked).size == (3, 2)
        assert file_states(tmp_path, [asked])[asked] is not None
        path.unlink()


def test_backslashes_stand_between_folders(tmp_path):
    (record,) = read(tmp_path, {"image": "coco\\train\\1.png", "conversations": TALK})
    assert record.images == ("coco/train/1.png",)
    assert record.source == "coco"
    for path in ("..\\x.png", "a\\..\\..\\x.png", "\\x.png"):
        with pytest.raises(DataError, match="leads outside the image folder"):
            read(tmp_path, {"image": path, "conversations": TALK})


def test_absolute_paths_may_lie_anywhere_in_the_root(tmp_path):
    (record,) = read(
        tmp_path, {"image": f"{tmp_path}/x.png", "conversations": TALK}, image_folder="/"
    )
    assert record.images == (f"{tmp_path}/x.png"[1:],)
    with pytest.raises(DataError, match="leads outside the image folder"):
        read(tmp_path, {"image": f"{tmp_path}-2/x.png", "conversations": TALK})


@pytest.mark.parametrize(
    ("image", "said"),
    [
        ("data:image/png;base64," + "QUJD" * 9, "holds base64 data; images must be files"),
        ("QUJD" * 9000, "holds base64 data; images must be files"),
        ("a.png " * 9000, "is a path of 54,000 characters"),
        ("https://x.org/a.png", r"is at 'https://x\.org/a\.png'; images must be on disk"),
    ],
)
def test_what_is_no_path_gets_a_short_line(tmp_path, image, said):
    for reader, item in (
        (LlavaJson, {"image": image, "conversations": TALK}),
        (ChatDataset, {"images": [image], "messages": CHAT}),
        (QuestionFile, {"question_id": 1, "text": "so?", "answer": "a", "image": image}),
    ):
        if reader is ChatDataset and image.startswith("data:"):
            continue  # it decodes these
        with pytest.raises(DataError, match=said) as error:
            read(tmp_path, item, reader=reader)
        assert len(str(error.value)) < 400


def test_the_home_folder_is_found_in_every_path(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    Image.new("RGB", (3, 2)).save(tmp_path / "x.png")
    read(tmp_path, {"image": "x.png", "conversations": TALK})
    (record,) = LlavaJson("~/data.json", image_folder="~/")
    assert open_image(LlavaJson("~/data.json").image_root, record.images[0]).size == (3, 2)
    read(tmp_path, {"messages": CHAT}, name="chat.json", reader=ChatDataset)
    assert len(list(ChatDataset("~/chat.json", image_folder="~"))) == 1
    read(
        tmp_path, {"question_id": 1, "text": "?", "answer": "a"}, name="q.json", reader=QuestionFile
    )
    assert len(list(QuestionFile("~/q.json", answers="~/q.json", image_folder="~/"))) == 1
