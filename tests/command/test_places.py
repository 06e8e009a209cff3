"""Lost if these fail: configs that stages share, and files where they are looked for."""

import json
import logging
import os

import pytest
from lightning.pytorch.callbacks import ModelCheckpoint

from coincide_pl.command.places import checkpoint_for
from coincide_pl.command.urls import local_paths
from coincide_pl.reporting.stages import STAGES

CPU = ("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false")


@pytest.fixture
def data(llava, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    words = ("--data.train=LlavaJson", f"--data.train.path={llava}", "--data.max_length=256")
    return (*words, f"--data.cache_dir={tmp_path}/cache", "--data.num_workers=0", *CPU)


def test_select_takes_a_config_of_fit(command, data, tiny, tmp_path):
    choose = ("--data.selector=Random", "--data.fraction=0.1", "--trainer.default_root_dir=run")
    target = ("--model=TargetModule", f"--model.pretrained={tiny}", "--trainer.max_epochs=1")
    status, _, message = command("fit", *data, *choose, *target, "--ckpt_path=last")
    assert status == 0, message
    chosen = (tmp_path / "run/selection.safetensors").read_bytes()
    status, _, message = command("select", "--config", "run/fit.yaml")
    assert status == 0, message
    assert (tmp_path / "run/selection.safetensors").read_bytes() == chosen
    assert "ckpt_path" not in (tmp_path / "run/select.yaml").read_text()


def test_predict_notes_its_stage_beside_its_signals(command, data, tiny, tmp_path):
    model = ("--model=ReferenceModule", f"--model.pretrained={tiny}", "--model.layers=[0]")
    for name in ("one", "two"):
        words = ("predict", *data, *model, f"--data.signals={name}", "--ckpt_path=last")
        status, _, message = command(*words)
        assert status == 0, message
        (line,) = (tmp_path / name / STAGES).read_text().splitlines()
        assert json.loads(line)["stage"] == "predict"
        assert (tmp_path / name / "predict.yaml").is_file()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    "words",
    [
        ("select", "--data.selection=s3://bucket/selection.safetensors"),
        ("select", "--data.cache_dir=gs://bucket/cache"),
        ("select", "--trainer.default_root_dir=s3://bucket/run"),
        ("select", "--data.train.image_folder=https://x.org/images"),
        ("fit", "--model=TargetModule", "--model.pretrained=hf://x/y"),
        ("compare", "s3://bucket/run", "--output=o"),
        ("report", "run", "--output=s3://bucket/report.html"),
        ("create-tiny-llava", "--output=file:///x"),
    ],
)
def test_an_address_is_refused_where_only_paths_work(command, data, words, tmp_path):
    verb, *others = words
    stage = data if verb in ("select", "fit") else ()
    before = {*os.listdir(tmp_path)}
    status, _, message = command(verb, *stage, *others)
    assert status == 1
    assert "://" in message
    assert "is no local path" in message
    assert {*os.listdir(tmp_path)} - before <= {"data"}


def test_lightning_s_own_options_may_be_addresses():
    logger = {"class_path": "lightning.pytorch.loggers.MLFlowLogger", "init_args": {"x": "s3://"}}
    config = {"trainer": {"logger": logger}, "ckpt_path": "s3://b/c.ckpt", "data": {"path": "a"}}
    assert dict(local_paths(config)) == {"data.path": "a"}
    shards = {
        "class_path": "coincide_pl.data.readers.ShardDataset",
        "init_args": {"path": "s3://b"},
    }
    assert "s3://b" not in dict(local_paths({"train": shards})).values()


def test_what_ckpt_path_is_for_each_stage(tmp_path, caplog):
    keeper = ModelCheckpoint(dirpath=tmp_path)
    assert checkpoint_for("fit", None, [keeper]) is None
    assert checkpoint_for("fit", "a.ckpt", [keeper]) == "a.ckpt"
    assert checkpoint_for("test", "a.ckpt", [keeper]) == "a.ckpt"
    assert checkpoint_for("fit", "last", [keeper]) is None
    assert checkpoint_for("fit", "last", [ModelCheckpoint(dirpath="memory://b")]) == "last"
    assert not caplog.records
    with caplog.at_level(logging.INFO):
        for verb in ("test", "validate"):
            assert checkpoint_for(verb, "last", [keeper]) is None
    assert [one.getMessage()[:27] for one in caplog.records] == ["ckpt_path: is fit's alone; "] * 2


def test_a_fit_that_begins_anew_beside_checkpoints_says_so(tmp_path, caplog):
    keeper = ModelCheckpoint(dirpath=tmp_path)
    for number, name in enumerate(("epoch=1.ckpt", "epoch=0.ckpt")):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (number, number))
    assert checkpoint_for("fit", "last", [keeper]) is None
    (line,) = [one.getMessage() for one in caplog.records]
    assert "begins anew" in line
    assert f"--ckpt_path='{tmp_path}/epoch=0.ckpt'" in line
    (tmp_path / "last-v1.ckpt").touch()
    assert checkpoint_for("fit", "last", [keeper]) == "last"
