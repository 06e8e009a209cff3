"""Lost if these fail: a stranger's run that can be read without running a stranger's code."""

import json

import pytest
import yaml

from coincide_pl.command.imports import modules_in

TRAIN = ("--data.train=LlavaJson", "--data.train.path=")
EVIL = "from pathlib import Path\nPath('ran').touch()\nclass Reader: pass\n"


@pytest.fixture
def run(command, llava, tmp_path, monkeypatch):
    """A run whose config names a reader in a module that lies in the working directory."""
    monkeypatch.chdir(tmp_path)
    words = ("--data.train=LlavaJson", f"--data.train.path={llava}", "--data.selector=Random")
    place = (f"--data.cache_dir={tmp_path}/cache", f"--trainer.default_root_dir={tmp_path}/run")
    status, _, message = command(
        "select", *words, *place, "--data.fraction=0.5", "--trainer.accelerator=cpu"
    )
    assert status == 0, message
    path = tmp_path / "run/select.yaml"
    config = yaml.safe_load(path.read_text())
    config["data"]["init_args"]["train"]["class_path"] = "strange.Reader"
    path.write_text(yaml.safe_dump(config))
    fit = {"model": {"class_path": "strange.Module", "init_args": {}}}
    (tmp_path / "run/fit.yaml").write_text(yaml.safe_dump({**config, **fit}))
    (tmp_path / "run/checkpoints").mkdir()
    (tmp_path / "run/checkpoints/last.ckpt").touch()
    (tmp_path / "strange.py").write_text(EVIL)
    return tmp_path / "run"


@pytest.mark.parametrize(
    "words",
    [
        ("report", "run"),
        ("report", "run", "--output=strange.html"),
        ("subset", "run", "--output=strange.json"),
        ("export", "run", "--output=strange.out"),
        ("compare", "run", "run"),
        ("overlap", "run", "run", "--output=o"),
    ],
)
def test_reading_a_run_imports_nothing(command, run, words):
    _, _, message = command(*words)
    assert not (run.parent / "ran").exists()
    assert "Traceback" not in message
    if words[0] in ("report", "subset", "export"):
        assert "strange." in message
        assert "--run_config" in message
        assert message.count("\n") == 1


def test_a_config_that_is_named_may_name_modules(command, run):
    _, _, message = command("report", "run", "--run_config", "run/select.yaml")
    assert (run.parent / "ran").exists()
    assert "strange.Reader is no subclass of coincide_pl.data.readers.Reader" in message


@pytest.mark.parametrize("path", ["os.system", "subprocess.Popen", "timeit.timeit"])
def test_what_runs_a_command_is_never_a_class(command, run, path):
    status, _, message = command("select", f"--data.selector={path}", "--data.fraction=0.5")
    assert status == 2
    assert path in message
    assert message.count("\n") == 1


def test_a_file_of_records_is_not_read_as_yaml(llava, tmp_path, monkeypatch):
    """A megabyte of it would take seconds, at the start of every command."""
    named = tmp_path / "reader.json"
    named.write_text(json.dumps({"class_path": "strange.Reader"}))
    monkeypatch.setattr(yaml, "safe_load", None)
    assert [*modules_in(str(llava))] == []
    assert [*modules_in(str(named))] == ["strange"]
