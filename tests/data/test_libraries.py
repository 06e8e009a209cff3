"""Lost if these fail: data that Hugging Face's `datasets` and `webdataset` wrote, or read."""

import gc
import io
import json
import tarfile
import warnings

import numpy as np
import pytest
from PIL import Image

from coincide_pl.data.images import open_image
from coincide_pl.data.readers import ChatDataset, LlavaJson, ShardDataset

datasets = pytest.importorskip("datasets", reason="the extra dev has it")
webdataset = pytest.importorskip("webdataset", reason="the extra dev has it")


@pytest.fixture(autouse=True)
def offline(tmp_path, monkeypatch):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hf")


def square(red):
    return Image.new("RGB", (8, 8), (red, 0, 0))


def made(count=7):
    """Rows as FineVision has them, with up to two images."""
    rows = {
        "images": [[square(10 * i + k) for k in range(i % 3)] for i in range(count)],
        "texts": [[{"user": f"q{i}", "assistant": f"a{i}"}] for i in range(count)],
        "source": [f"s{i % 2}" for i in range(count)],
    }
    features = datasets.Features(
        {
            "images": datasets.List(datasets.Image()),
            "texts": datasets.List(
                {"user": datasets.Value("string"), "assistant": datasets.Value("string")}
            ),
            "source": datasets.Value("string"),
        }
    )
    return datasets.Dataset.from_dict(rows, features)


def reds(records):
    root = records.image_root
    return [[open_image(root, i).getpixel((0, 0))[0] for i in r.images] for r in records]


@pytest.mark.parametrize("kind", ["save_to_disk", "parquet", "shards"])
def test_what_datasets_wrote_is_read_and_written_back(tmp_path, kind):
    own = made()
    place = tmp_path / ("data.parquet" if kind != "save_to_disk" else "data")
    own.save_to_disk(place) if kind == "save_to_disk" else own.to_parquet(place)
    reader = (ShardDataset if kind == "shards" else ChatDataset)(str(place))
    records = reader.records(tmp_path / "cache")
    assert reds(records) == [[i.getpixel((0, 0))[0] for i in row["images"]] for row in own]
    assert [r.turns[-1].text for r in records] == [row["texts"][0]["assistant"] for row in own]
    assert records.sources == own["source"][:]
    rows = [5, 0, 2]
    target = tmp_path / ("back" if kind == "save_to_disk" else "back.parquet")
    reader.write_subset(rows, target)
    if kind == "save_to_disk":
        back = datasets.load_from_disk(str(target))
    else:
        back = datasets.load_dataset("parquet", data_files=str(target), split="train")
    assert back.features == own.features
    for found, expected in zip(back, own.select(rows), strict=True):
        assert found["texts"] == expected["texts"]
        assert [i.tobytes() for i in found["images"]] == [i.tobytes() for i in expected["images"]]


def test_llavas_json_as_datasets_reads_it(llava, tmp_path):
    records = LlavaJson(str(llava)).records(tmp_path / "cache")
    LlavaJson(str(llava)).write_subset([4, 1], tmp_path / "back.json")
    for file, rows in ((llava, range(60)), (tmp_path / "back.json", [4, 1])):
        own = datasets.load_dataset("json", data_files=str(file), split="train")
        for row, item in zip(rows, own, strict=True):
            assert item["id"] == records[row].id
            assert [t["value"] for t in item["conversations"]] == [
                turn.text for turn in records[row].turns
            ]


@pytest.fixture
def shards(tmp_path):
    """Shards that `webdataset` wrote, with a member that nobody reads."""
    folder = tmp_path / "shards"
    folder.mkdir()
    with webdataset.ShardWriter(f"{folder}/%03d.tar", maxcount=4, verbose=0) as writer:
        for i in range(10):
            talk = [{"from": "human", "value": f"q{i}"}, {"from": "gpt", "value": f"a{i}"}]
            sample = {"__key__": f"deep/s{i:03}", "json": {"conversations": talk}, "txt": "seen"}
            writer.write(sample | {f"{k}.png": square(20 * i + k) for k in range(i % 3)})
    return folder


def by_webdataset(*files):
    """The samples that `webdataset` itself reads; it leaves closing its files to Python."""
    found = webdataset.WebDataset([*map(str, files)], shardshuffle=False)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        samples = [*found.decode("pil")]
        del found
        gc.collect()
    return samples


def said_and_shown(samples):
    return {
        sample["__key__"]: (
            [turn["value"] for turn in sample["json"]["conversations"]],
            [v.getpixel((0, 0))[0] for k, v in sample.items() if k.endswith("png")],
        )
        for sample in samples
    }


def test_what_webdataset_wrote(shards, tmp_path):
    records = ShardDataset(str(shards)).records(tmp_path / "cache")
    expected = said_and_shown(by_webdataset(*sorted(shards.iterdir())))
    found = {
        r.id: ([t.text.replace("<image>\n", "") for t in r.turns], red)
        for r, red in zip(records, reds(records), strict=True)
    }
    assert found == expected
    assert [*found] == [*expected]
    assert any("'.txt' (10 records)" in line for line in records.notes.messages)


def test_webdataset_reads_a_subset(shards, tmp_path):
    reader = ShardDataset(str(shards))
    reader.records(tmp_path / "cache")
    rows = np.random.default_rng(0).permutation(10)[:6].tolist()
    reader.write_subset(rows, tmp_path / "chosen.tar")
    own = said_and_shown(by_webdataset(*sorted(shards.iterdir())))
    found = said_and_shown(by_webdataset(tmp_path / "chosen.tar"))
    assert [*found] == [f"deep/s{row:03}" for row in rows]
    assert found == {key: own[key] for key in found}
    with tarfile.open(tmp_path / "chosen.tar") as tar:
        assert {m.name.partition(".")[2] for m in tar} == {"json", "txt", "0.png", "1.png"}
    back = ShardDataset(str(tmp_path / "chosen.tar")).records(tmp_path / "cache")
    assert [record.turns[-1].text for record in back] == [f"a{row}" for row in rows]


def test_a_key_that_two_shards_have(tmp_path):
    for name in ("a", "b"):
        talk = [{"from": "human", "value": name}, {"from": "gpt", "value": name}]
        content = json.dumps(talk).encode()
        with tarfile.open(tmp_path / f"{name}.tar", "w") as tar:
            about = tarfile.TarInfo("x.json")
            about.size = len(content)
            tar.addfile(about, io.BytesIO(content))
    reader = ShardDataset(str(tmp_path))
    reader.records(tmp_path / "cache")
    reader.write_subset([1, 0], tmp_path / "out" / "chosen.tar")
    back = ShardDataset(str(tmp_path / "out")).records(tmp_path / "cache")
    assert [record.turns[0].text for record in back] == ["b", "a"]
    keys = [one["__key__"] for one in by_webdataset(tmp_path / "out" / "chosen.tar")]
    assert keys == ["x", "a/x"]
