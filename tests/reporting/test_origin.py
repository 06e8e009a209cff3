"""Lost if these fail: a run that is read from any folder, and without running what lies there."""

import json
import sys

import pytest
import yaml

from coincide_pl.reporting.config import read_config
from coincide_pl.reporting.costs import costs


@pytest.fixture
def selected(llava, tmp_path, command, monkeypatch):
    """A run that was started in a folder of its own, with relative paths; returns that folder."""
    home = tmp_path / "home"
    home.mkdir()
    llava.parent.rename(home / "data")
    monkeypatch.chdir(home)
    words = ("select", "--data.train=LlavaJson", "--data.train.path=data/data.json")
    status, _, said = command(
        *(*words, "--data.selector=Random", "--data.fraction=0.5", "--data.cache_dir=cache"),
        *("--trainer.accelerator=cpu", "--trainer.default_root_dir=run"),
    )
    assert status == 0, said
    return home


def test_a_run_is_read_from_another_folder(selected, command, tmp_path, monkeypatch):
    away = tmp_path / "away"
    away.mkdir()
    monkeypatch.chdir(away)
    status, _, said = command("subset", "../home/run", "--output=chosen.json")
    assert status == 0, said
    assert len(json.loads((away / "chosen.json").read_text())) == 30
    status, _, said = command("report", "../home/run")
    assert status == 0, said
    assert (selected / "run/report.html").read_text().count("data:image/webp") > 0
    status, _, said = command("overlap", "../home/run", "../home/run/selection.safetensors")
    assert status == 0, said
    assert {path.name for path in away.iterdir()} == {"chosen.json", "overlap"}
    assert {path.name for path in selected.iterdir()} == {"cache", "data", "run"}


def test_data_that_moved_away_are_named_with_the_folder(selected, command, tmp_path, monkeypatch):
    (selected / "data").rename(tmp_path / "elsewhere")
    monkeypatch.chdir(tmp_path)
    status, _, said = command("report", "home/run")
    assert status == 1
    assert said == (
        f"error: data/data.json: no such data file (named in {selected}/run/select.yaml, "
        f"from {selected})\n"
    )


def test_costs_are_found_from_another_folder(selected, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = selected / "run"
    config = read_config(run / "select.yaml")
    config["data"]["init_args"]["signals"] = "signals"
    (run / "select.yaml").rename(run / "fit.yaml")
    (selected / "signals").mkdir()
    stage = {"seconds": 5, "finished": True, "folder": str(selected)}
    (selected / "signals/stages.jsonl").write_text(json.dumps({"stage": "predict", **stage}))
    (run / "selection.safetensors").unlink()  # what it was made from is then in the config
    with (run / "stages.jsonl").open("a") as file:
        file.write(json.dumps({"stage": "fit", **stage}))
    assert costs(run, config).seconds["signals predict"] == 5
    predict = {"model": {"init_args": {"warm_up": "warm/checkpoints/epoch-3.ckpt"}}}
    (selected / "signals/predict.yaml").write_text(json.dumps(predict))
    (selected / "warm").mkdir()
    (selected / "warm/stages.jsonl").write_text(json.dumps({"stage": "fit", **stage}))
    assert costs(run, config).seconds["warm fit"] == 5


EVIL = "import pathlib\npathlib.Path('ran').touch()\nclass Evil: pass\n"


@pytest.mark.parametrize(
    "train",
    [
        {"class_path": "evil.Evil", "init_args": {}},
        {"class_path": "evil.Evil"},
        {"class_path": "LlavaJson", "init_args": {"path": {"class_path": "evil.Evil"}}},
        {"class_path": "coincide_pl.evil.LlavaJson", "init_args": {"paths": "evil"}},
        {"class_path": "subprocess.Popen", "init_args": {"args": ["touch", "ran"]}},
        {"class_path": "coincide_pl.Reader", "init_args": {}},
        {"class_path": ["evil"], "init_args": 3},
        {"class_path": "LlavaJson", "init_args": {"path": "x.json", "on_error": "evil"}},
    ],
)
def test_reading_a_run_imports_nothing(selected, command, train):
    """A run may come from anywhere, and a module of any name may lie in the current folder."""
    (selected / "evil.py").write_text(EVIL)
    path = selected / "run/select.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"]["train"] = train
    path.write_text(yaml.safe_dump(config))
    for verb in ("report", "subset", "overlap"):
        words = {"subset": ["--output=x.json"], "overlap": ["run"]}.get(verb, [])
        status, _, said = command(verb, "run", *words)
        assert (status, said.count("\n")) == (1, 1), said
        assert said.startswith("error: ")
    assert not (selected / "ran").exists()
    assert "evil" not in sys.modules
