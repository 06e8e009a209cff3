"""Lost if these fail: signals of images that have changed since, used as if they had not."""

import os
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from coincide_pl.data import image_states
from coincide_pl.data.image_states import file_states, images_digest
from coincide_pl.data.readers import ChatDataset, LlavaJson


@pytest.fixture
def records(llava, tmp_path):
    return LlavaJson(str(llava)).records(tmp_path / "cache")


def paint(path, color):
    """Another picture of the same size in bytes, at the same time."""
    before = path.stat()
    content = bytearray(path.read_bytes())
    content[-20] ^= color
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_an_image_that_is_overwritten_is_seen(records):
    before = images_digest(records)
    assert images_digest(records) == before
    path = records.image_root / records.image_names[3]
    state = path.stat()
    os.utime(path, ns=(state.st_atime_ns, state.st_mtime_ns + 1))
    touched = images_digest(records)
    assert touched != before
    path.unlink()
    assert images_digest(records) not in (before, touched)


def test_content_is_seen_where_size_and_time_are_the_same(records):
    before, content = images_digest(records), images_digest(records, content=True)
    paint(records.image_root / records.image_names[0], 1)
    assert images_digest(records) == before
    assert images_digest(records, content=True) != content


def test_images_that_were_copied_have_the_same_content(records, llava, tmp_path):
    copy = shutil.copytree(llava.parent, tmp_path / "copy", copy_function=shutil.copyfile)
    other = LlavaJson(str(copy / llava.name)).records(tmp_path / "cache")
    assert images_digest(other, content=True) == images_digest(records, content=True)
    assert images_digest(other) != images_digest(records)


def test_neither_threads_nor_tasks_make_a_difference(records, monkeypatch):
    whole = images_digest(records, num_threads=1)
    monkeypatch.setattr(image_states, "IMAGES_PER_TASK", 3)
    assert images_digest(records, num_threads=4) == whole


def test_records_without_images_have_a_digest(tmp_path):
    talk = '[{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]'
    (tmp_path / "data.json").write_text('[{"conversations": ' + talk + "}]")
    records = LlavaJson(str(tmp_path / "data.json")).records(tmp_path / "cache")
    assert records.image_names == []
    assert images_digest(records) != images_digest(records, content=True)


def test_embedded_images_may_be_written_to_the_cache_again(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]
    row = {"messages": talk, "images": [{"bytes": (tmp_path / "x.png").read_bytes()}]}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "x.parquet")

    def digest():
        records = ChatDataset(str(tmp_path / "x.parquet")).records(tmp_path / "cache")
        return images_digest(records), records.image_root / records.image_names[0]

    before, path = digest()
    os.utime(path, ns=(1, 1))
    shutil.rmtree(tmp_path / "cache")
    assert digest()[0] == before


def test_the_state_of_an_image_changes_with_the_image(tmp_path):
    Image.new("RGB", (4, 4)).save(tmp_path / "x.png")
    before = file_states(tmp_path, ["x.png", "y.png", "z\0.png"])
    assert before["y.png"] is before["z\0.png"] is None
    Image.new("RGB", (40, 40), "red").save(tmp_path / "x.png")
    assert file_states(tmp_path, ["x.png"])["x.png"] != before["x.png"]
