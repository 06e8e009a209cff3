"""Lost if these fail: a selection in the form that another tool reads, read back and compared."""

import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from readmes import ROOT, blocks
from transformers import AutoProcessor

from coincide_pl.data.readers import LlavaJson, Mix, ShardDataset
from coincide_pl.selection import Selection

sys.path.insert(0, str(Path(__file__).parents[1] / "data"))
from test_shards import picture, shards  # noqa: F401

FORMATS = Path(__file__).parents[1] / "data" / "formats"


@pytest.fixture
def selected(command, tmp_path):
    """Chooses half of the data of a reader; the run, and the picks."""

    def select(*words):
        status, _, said = command(
            *("select", "--data=InstructionData", *words, f"--data.cache_dir={tmp_path}/cache"),
            *("--data.selector=Random", "--data.fraction=0.5", "--trainer.accelerator=cpu"),
            f"--trainer.default_root_dir={tmp_path}/run",
        )
        assert status == 0, said
        path = tmp_path / "run" / "selection.safetensors"
        return tmp_path / "run", Selection.load(path).indices

    return select


@pytest.fixture
def write(command, tmp_path):
    """Writes a form, and has it read back."""

    def subset(run, name, form):
        target = tmp_path / name
        status, _, said = command(
            "subset", run, f"--output={target}", f"--form={form}", "--check=true"
        )
        assert status == 0, said
        assert "read back, and as selected" in said
        return target

    return subset


def test_a_llava_file_in_every_form(selected, write, llava, tmp_path, command):
    run, chosen = selected("--data.train=LlavaJson", f"--data.train.path={llava}")
    items = json.loads(llava.read_text())
    assert np.load(write(run, "rows.npy", "rows")).tolist() == chosen.tolist()
    assert json.loads(write(run, "rows.json", "rows").read_text()) == chosen.tolist()
    ids = [items[row]["id"] for row in chosen]
    assert json.loads(write(run, "ids.json", "ids").read_text()) == ids
    assert write(run, "ids.txt", "ids").read_text().split() == ids
    assert json.loads(write(run, "own.json", "own").read_text()) == [items[row] for row in chosen]
    back = list(LlavaJson(str(write(run, "llava.json", "llava")), str(llava.parent)))
    assert [record.id for record in back] == ids
    folder = write(run, "lf", "llama_factory")
    records = Mix(str(folder / "dataset_info.json"), image_folder="/").records(tmp_path / "cache")
    assert [record.id for record in records] == ids
    (entry,) = json.loads((folder / "dataset_info.json").read_text()).values()
    assert entry["formatting"] == "sharegpt"
    for name, form in (("own.json.gz", "own"), ("own.jsonl.zst", "own"), ("l.json.gz", "llava")):
        packed = LlavaJson(str(write(run, name, form)), str(llava.parent))
        assert [record.id for record in packed] == ids
    status, _, said = command("subset", run, f"--output={tmp_path}/ids.json.gz", "--form=ids")
    assert status == 1
    assert "ids are written to a .json or .txt file" in said
    for form in ("members", "energon"):
        status, _, said = command("subset", run, f"--output={tmp_path}/x", f"--form={form}")
        assert status == 1
        assert "its data are not in shards" in said


def test_what_is_not_as_selected_is_named(selected, command, llava, tmp_path, monkeypatch):
    from coincide_pl.reporting import forms

    run, _ = selected("--data.train=LlavaJson", f"--data.train.path={llava}")
    for form, name in (("rows", "rows.json"), ("ids", "ids.json"), ("own", "own.json")):
        whole = forms.write

        def short(origin, target, form, whole=whole):
            whole(origin, target, form)
            target.write_text(json.dumps(json.loads(target.read_text())[1:]))

        monkeypatch.setattr(forms, "write", short)
        words = ("subset", run, f"--output={tmp_path / name}", f"--form={form}", "--check=true")
        status, _, said = command(*words)
        assert status == 1
        assert f"{name}: does not hold what was selected" in said
        monkeypatch.undo()


def test_a_mix(selected, write, tmp_path):
    formats = Path(shutil.copytree(FORMATS, tmp_path / "formats"))
    run, _ = selected("--data.train=Mix", f"--data.train.path={formats}/internvl.json")
    folder = write(run, "own", "own")
    assert (folder / "mix.json").is_file()
    write(run, "rows.npy", "rows")
    for item in json.loads(write(run, "llava.json", "llava").read_text()):
        assert Path(item["image"]).is_file()
    write(run, "lf", "llama_factory")


def test_the_list_of_a_mix_is_read_as_the_command_says(selected, command, tmp_path):
    """It lies elsewhere, but image paths are relative to the folder of the old one."""
    formats = Path(shutil.copytree(FORMATS, tmp_path / "formats"))
    shutil.copy(formats / "images" / "1.png", formats)
    run, _ = selected("--data.train=Mix", f"--data.train.path={formats}/swift.yaml")
    status, _, said = command("subset", run, f"--output={tmp_path}/own")
    assert status == 0, said
    (advice,) = [word for word in said.split() if word.startswith("--data.train.image_folder=")]
    listed = f"--train.path={tmp_path}/own/mix.yaml"
    status, _, said = command("check", "--train=Mix", listed, advice.replace("data.", ""))
    assert status == 0, said


def test_shards(selected, write, command, shards, tmp_path):  # noqa: F811
    run, chosen = selected("--data.train=ShardDataset", f"--data.train.path={shards}")
    ids = [f"s{row:03}" for row in chosen]
    for form, name in (("own", "own.json"), ("members", "members.json")):
        members = json.loads(write(run, name, form).read_text())["shards"]
        assert sorted(key for keys in members.values() for key in keys) == sorted(ids)
        assert members["part-001.tar"] == [i for i in ids if "s004" <= i <= "s007"]
    split = write(run, "split.yaml", "energon")
    content = yaml.safe_load(split.read_text())
    assert content["split_parts"]["train"] == [*members]
    (shards / ".nv-meta").mkdir()
    shutil.copy(split, shards / ".nv-meta")
    there = ShardDataset(str(shards)).records(tmp_path / "other")
    assert sorted(record.id for record in there) == sorted(ids)
    shutil.rmtree(shards / ".nv-meta")
    status, _, said = command("subset", run, f"--output={tmp_path}/x.json", "--form=llava")
    assert status == 1
    assert "images lie in shards" in said


@pytest.mark.parametrize("reader", ["ShardDataset", "ChatDataset"])
def test_parquet(selected, write, tmp_path, reader):
    rows = [
        {"images": [{"bytes": picture(9 * i), "path": None}], "query": f"q{i}", "response": "a"}
        for i in range(9)
    ]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "x.parquet", row_group_size=4)
    run, chosen = selected(f"--data.train={reader}", f"--data.train.path={tmp_path}/x.parquet")
    target = write(run, "chosen.parquet", "own")
    assert pq.read_table(target)["query"].to_pylist() == [f"q{row}" for row in chosen]
    if reader == "ChatDataset":
        write(run, "lf", "llama_factory")
        write(run, "llava.json", "llava")


@pytest.mark.filterwarnings("ignore")  # other packages'
@pytest.mark.parametrize("package", ["datasets", "trl"])
def test_what_the_readme_says_of_other_packages_works(
    package, command, llava, models, tmp_path, monkeypatch
):
    pytest.importorskip(package)
    llava.parent.rename(tmp_path / "images")
    data = ("--data.train=LlavaJson", "--data.train.path=images/data.json")
    monkeypatch.chdir(tmp_path)
    words = (*data, f"--data.cache_dir={tmp_path}/cache", "--trainer.default_root_dir=run")
    assert command("select", *words, "--data.selector=Random", "--data.fraction=0.2")[0] == 0
    for name, form in (("chosen", "llava"), ("rows", "rows")):
        assert command("subset", "run", f"--output={name}.json", f"--form={form}")[0] == 0
    (tmp_path / "mix.json").write_text((tmp_path / "images/data.json").read_text())
    (block,) = (
        block
        for block in blocks(ROOT / "coincide_pl/data/README.md")
        if block.language == "python" and block.mark.rpartition(" ")[2] == package
    )
    names = {}
    exec(block.text, names)
    if package == "datasets":
        assert names["chosen"]["id"] == names["rows"]["id"]
        return
    from trl.trainer.sft_trainer import DataCollatorForVisionLanguageModeling

    shown = [row for row in names["data"] if row["images"]]
    collate = DataCollatorForVisionLanguageModeling(
        AutoProcessor.from_pretrained(models / "TARGET")
    )
    assert len(collate(shown)["pixel_values"]) == len(shown) > 0
