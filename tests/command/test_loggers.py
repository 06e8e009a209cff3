"""Lost if these fail: what CSV and TensorBoard loggers show of a run, its tests beside its fit."""

import csv

import pytest
import yaml
from lightning.fabric.loggers import tensorboard
from lightning_utilities.core.imports import RequirementCache


@pytest.mark.parametrize(
    "kind",
    [
        "CSVLogger",
        pytest.param(
            "TensorBoardLogger", marks=pytest.mark.filterwarnings("ignore::DeprecationWarning")
        ),
    ],
)
def test_a_test_is_logged_beside_its_fit(kind, command, tiny, llava, tmp_path):
    run = tmp_path / "run"
    words = (
        *("--config=models/target", "--data.train=LlavaJson", f"--data.train.path={llava}"),
        *(f"--data.cache_dir={tmp_path}/cache", f"--trainer.default_root_dir={run}"),
        *("--trainer.accelerator=cpu", "--trainer.enable_progress_bar=false"),
        *(f"--trainer.logger={kind}", f"--trainer.logger.save_dir={run}", "--data.fraction=0.2"),
        *("--data.selector=Random", "--trainer.log_every_n_steps=1"),
    )
    fit = ("--trainer.max_steps=2", "--model.optimizer.lr=0.125", f"--model.pretrained={tiny}")
    assert command("fit", *words, *fit)[0] == 0
    (version,) = (run / "lightning_logs").iterdir()
    questions = ("--data.test=LlavaJson", f"--data.test.path={llava}")
    status, _, message = command("test", *words, *questions, f"--model.pretrained={run}/model")
    assert status == 0, message
    assert [*(run / "lightning_logs").iterdir()] == [version]
    if kind == "CSVLogger":
        noted = yaml.safe_load((version / "hparams.yaml").read_text())
        assert (noted["data.fraction"], noted["model.optimizer.lr"]) == (0.2, 0.125)
        for file, column in (("metrics.csv", "train/loss"), ("test/metrics.csv", "test/mean")):
            with (version / file).open() as lines:
                assert any(row.get(column) for row in csv.DictReader(lines))
        return
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(version)).Reload()
    assert {"train/loss", "test/mean"} <= {*events.Tags()["scalars"]}
    named = EventAccumulator(str(version)).Reload().summary_metadata
    start = named["_hparams_/session_start_info"].plugin_data.content
    assert all(name in start for name in (b"data.fraction", b"model.optimizer.lr"))


def test_a_missing_tensorboard_is_one_whole_line(command, tiny, llava, tmp_path, monkeypatch):
    for name in ("_TENSORBOARD_AVAILABLE", "_TENSORBOARDX_AVAILABLE"):
        monkeypatch.setattr(tensorboard, name, RequirementCache("tensorboard>=999"))
    words = ("--data.train=LlavaJson", f"--data.train.path={llava}", f"--model.pretrained={tiny}")
    logger = ("--trainer.logger=TensorBoardLogger", f"--trainer.logger.save_dir={tmp_path}")
    root = f"--trainer.default_root_dir={tmp_path}/run"
    status, _, message = command("fit", "--config=models/target", *words, *logger, root)
    (line,) = (line for line in message.splitlines() if line.startswith("error:"))
    assert (status, "pip install -U 'tensorboard>=999'" in line) == (2, True)
