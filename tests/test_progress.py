"""Lost if these fail: a log that says how far a run of hours has come."""

import logging

import lightning
import pytest

from coincide_pl import InstructionData, LlavaJson, ReferenceModule, progress
from coincide_pl.callbacks import ProgressLines


@pytest.fixture
def clock(monkeypatch):
    """Half a minute passes at each look."""
    now = iter(range(0, 10**6, 30))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))


def test_a_line_now_and_then(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress.progress("clusters", 8) as advance:
        for _ in range(8):
            advance(1)
    assert [record.getMessage() for record in caplog.records] == [
        "clusters: 25 % done, about 0:03:00 left",
        "clusters: 50 % done, about 0:02:00 left",
        "clusters: 75 % done, about 0:01:00 left",
        "clusters: 100 % done, about 0:00:00 left",
    ]


def test_one_process_speaks(clock, caplog):
    caplog.set_level(logging.INFO)
    with progress.progress("clusters", 8, shown=False) as advance:
        advance(8)
    assert not caplog.records


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_stages_say_how_far_they_are(tiny, llava, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(progress, "EVERY", 0.0)
    caplog.set_level(logging.INFO)
    data = InstructionData(LlavaJson(str(llava)), cache_dir=str(tmp_path), batch_size=30)
    options = {"logger": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = lightning.Trainer(**options, callbacks=[ProgressLines()])
    trainer.predict(ReferenceModule(tiny, layers=[0]), data)
    lines = [record.getMessage() for record in caplog.records if record.name == progress.__name__]
    assert lines[0].startswith("predict: ")
    assert lines[-1].startswith("predict: 100 % done")
