"""Lost if these fail: reading other trainers' data as their own loaders read it."""

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import yaml

from coincide_pl.data.readers import ChatDataset, LlavaJson, Mix
from coincide_pl.data.readers.sampling import with_sampling

HERE = Path(__file__).parent
LOADERS = json.loads((HERE / "loaders" / "loaders.json").read_text())


@pytest.fixture
def formats(tmp_path):
    """A small file of each format, in a folder that may be changed."""
    return Path(shutil.copytree(HERE / "formats", tmp_path / "formats"))


def read(records):
    return [
        {"images": [*r.images], "turns": [[turn.role, turn.text] for turn in r.turns]}
        for r in records
    ]


@pytest.mark.parametrize("name", LOADERS["ms-swift"])
def test_ms_swift(formats, name):
    assert read(ChatDataset(str(formats / name))) == LOADERS["ms-swift"][name]


@pytest.mark.parametrize("name", LOADERS["LLaMA-Factory"])
def test_llama_factory(formats, tmp_path, name):
    records = Mix(str(formats / "dataset_info.json"), name).records(tmp_path / "cache")
    found = read(records)
    for one in found:
        one["images"] = [image.partition("/")[2] for image in one["images"]]
    assert found == LOADERS["LLaMA-Factory"][name]


@pytest.mark.parametrize("name", ["qwen_vl.json", "qwen_vl_packed.json", "llava.json"])
def test_qwen_vl(formats, name):
    found = read(LlavaJson(str(formats / name)))
    for one in found:  # it strips what stands between images and text
        one["turns"] = [[role, text.replace("\n", "")] for role, text in one["turns"]]
    assert found == LOADERS["Qwen3-VL"][name]


def test_qwen_vls_shares():
    for name, rate in LOADERS["Qwen3-VL"]["rates"].items():
        _, sampling = with_sampling(name)
        counts = sampling.counts(200, (0,)) if sampling else [1] * 200
        assert sum(counts) == int(200 * min(rate, 1))  # from 1 on, its loader draws nothing


def test_internvl(formats, tmp_path):
    own = LOADERS["InternVL"]
    for times, ids in own["repeat_time"].items():
        entry = {"root": "images/", "annotation": "internvl.jsonl", "repeat_time": float(times)}
        (formats / "meta.json").write_text(json.dumps({"ocr": entry}))
        records = Mix(str(formats / "meta.json")).records(tmp_path / f"cache-{times}")
        assert Counter(int(record.id) for record in records) == Counter(ids)
    assert (
        read(LlavaJson(str(formats / "internvl.jsonl"), str(formats / "images")))[:4]
        == (own["internvl.jsonl"])
    )


def test_llava_next(formats, tmp_path):
    own = LOADERS["LLaVA-NeXT"]
    for strategy, ids in own["sampling"].items():
        entry = {"json_path": "llava.json", "sampling_strategy": strategy}
        (formats / "list.yaml").write_text(yaml.safe_dump({"datasets": [entry]}))
        records = Mix(str(formats / "list.yaml")).records(tmp_path / f"cache-{strategy}")
        assert [record.id for record in records] == ids
    shutil.copy(formats / "images" / "1.png", formats)
    records = Mix(str(formats / "onevision.yaml")).records(tmp_path / "cache")
    found = read(records)
    for one in found:
        one["images"] = [image.partition("/")[2] for image in one["images"]]
    assert found[: len(own["onevision.yaml"])] == own["onevision.yaml"]
    assert len(found) == own["count"]
