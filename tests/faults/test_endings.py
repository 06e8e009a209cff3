"""Lost if these fail: one line and the right status, at a signal, a full disk, a lost process."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass

import pytest
from harness import All, AtCall, Send
from test_kills import OFTEN, STORE

STEP = "coincide_pl.models.target:TargetModule.training_step"
ENTRY = 20
"""Bytes of a journal's note of a row and its value."""
PREDICT = "coincide_pl.models.reference:ReferenceModule.predict_step"
TEST = "coincide_pl.models.target:TargetModule.test_step"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_path_with_a_line_and_nothing_lost(runner, whole, fresh, number):
    places = {
        "predict": [("coincide_pl.data.columns:_chunk", 1), (PREDICT, 4), ("os:write", 3)],
        "select": [
            ("coincide_pl.selection.steps.cluster_order:ClusterOrder._read", 3),
            ("os:replace", 3),
        ],
        "fit": [("torch:save", 1), (STEP, 3)],
        "test": [(TEST, 4)],
        "report": [("os:replace", 1)],
    }
    for stage, at in places.items():
        for place, call in at:
            fault = All((*OFTEN, AtCall(place, call, Send(number))))
            result = runner(*fresh.words(stage), fault=fault)
            assert result.is_clean, (stage, place, result.message)
            assert result.line == "interrupted: the same command goes on from here"
            assert result.status == 128 + number
            assert fresh.leftovers() == []
        result = runner(*fresh.words(stage))
        assert result.status == 0, result.message
    assert fresh.digests() == whole.digests()


def test_a_batch_in_hand_is_finished_and_kept(runner, fresh):
    """Also where nothing is kept but at the end: the checkpoint and the journal are written."""
    result = runner(*fresh.words("predict"), fault=AtCall(PREDICT, 4, Send(signal.SIGTERM)))
    assert result.status == 143, result.message
    (journal,) = (fresh.signals / "shards").glob("*.rows")
    assert journal.stat().st_size == 4 * 4 * ENTRY
    assert runner(*fresh.words("predict")).status == 0
    result = runner(*fresh.words("fit"), fault=AtCall(STEP, 4, Send(signal.SIGTERM)))
    assert result.status == 143, result.message
    result = runner(*fresh.words("fit"), fault=AtCall(STEP, 2 * 6 - 4 + 1))
    assert result.status == 0, result.message  # of 12 steps in all
    assert "Be aware" not in result.message


def test_a_fit_that_starts_afresh_says_how_not_to(runner, walked):
    shutil.rmtree(walked.folder / "run/model")  # or it is refused
    words = walked.words("fit", "--ckpt_path=null")
    result = runner(*words, fault=AtCall(STEP, 3, Send(signal.SIGTERM)))
    assert "--ckpt_path=last" in result.line, result.message


@dataclass(frozen=True)
class Hold:
    """Tells that the place was reached, and stays there."""

    pipe: str

    def __call__(self):
        with open(self.pipe, "w") as pipe:
            pipe.write("reached")
        signal.pause()


@pytest.mark.parametrize("stage", ["predict", "fit"])
def test_a_second_run_on_the_same_output_is_refused_and_told_of_the_first(
    runner, fresh, tmp_path, stage
):
    if stage == "fit":
        assert runner(*fresh.words("predict")).status == 0
    os.mkfifo(tmp_path / "pipe")
    place = PREDICT if stage == "predict" else STEP
    first = runner.start(*fresh.words(stage), fault=AtCall(place, 2, Hold(f"{tmp_path}/pipe")))
    assert (tmp_path / "pipe").read_text() == "reached"
    second = runner(*fresh.words(stage))
    assert second.is_clean, second.message
    assert f"process {first.process.pid} on {os.uname().nodename}, since 20" in second.line
    first.send(signal.SIGKILL)
    first.end()
    assert runner(*fresh.words(stage)).status == 0  # the lock is gone with its holder


@dataclass(frozen=True)
class SmallDisk:
    """No file may grow beyond a size: the write that would is short, and the next one fails."""

    size: int

    def __call__(self):
        resource.setrlimit(resource.RLIMIT_FSIZE, (self.size, self.size))


@pytest.mark.parametrize(
    ("stage", "place", "size", "said"),
    [
        ("predict", "coincide_pl.data.columns:_chunk", 1000, ".arrow"),
        ("predict", f"{STORE}:SignalsWriter.create", 700, "manifest.json"),
        ("predict", f"{STORE}:SignalsWriter.write", 1000, "activations.values"),
        ("predict", f"{STORE}:seal", 1000, "activations.npy"),
        ("select", "coincide_pl.selection.selection:Selection.save", 1000, "selection.safetensors"),
        ("fit", "torch:save", 30000, "last.ckpt"),
        ("fit", "coincide_pl.models.export:save_checkpoint", 30000, "run/model"),
        ("test", TEST, 600, ".answers.0.jsonl"),
        ("report", "coincide_pl.reporting.report:write_text", 3000, "report.html"),
    ],
)
def test_a_full_disk_is_named_and_nothing_is_half_written(
    runner, whole, walked, stage, place, size, said
):
    undo(walked, stage)
    before = walked.digests()
    result = runner(*walked.words(stage), fault=All((*OFTEN, AtCall(place, 1, SmallDisk(size)))))
    assert result.is_clean, result.message
    assert f"{said}: can't be written (File too large)" in result.line
    assert walked.leftovers() == []
    after = walked.digests()
    assert all(after[name] == before[name] for name in before if name in after)
    assert runner(*walked.words(stage)).status == 0
    assert walked.digests().items() <= whole.digests().items()


OUTPUT = {
    "predict": ["."],
    "select": ["run", "signals/selection"],
    "fit": ["run/model"],
    "test": ["run/results.json", "run/answers.jsonl"],
    "report": ["run/report.html"],
}


def undo(journey, stage):
    """Takes away what a stage wrote."""
    for name in OUTPUT[stage]:
        path = journey.folder / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_anything_has_begun(signum):
    """While libraries load."""
    code = (
        "import os, signal, sys, coincide_pl.__main__ as m\n"
        "class Sender:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'coincide_pl.command.main': os.kill(os.getpid(), int(sys.argv[1]))\n"
        "sys.meta_path.insert(0, Sender())\n"
        "m.main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(int(signum))], capture_output=True, text=True
    )
    assert done.returncode == 128 + signum
    assert done.stderr == "interrupted: nothing had begun\n"
