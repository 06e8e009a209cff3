"""Lost if these fail: a run that ends, with a line, when one of its processes is lost."""

from __future__ import annotations

import os
import select
import signal
import time
from dataclasses import dataclass, replace
from pathlib import Path

from harness import All, AtCall, Send, Set
from stages import TWO
from test_endings import PREDICT, STEP

HURRY = Set("coincide_pl.command.launcher:PATIENCE", 4.0)
MINUTE = 60.0


def children():
    """Processes that this one has started."""
    return [int(one) for one in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


@dataclass(frozen=True)
class Lose:
    """Kills the processes that this one started, and works on for long, or kills itself.

    Attributes:
        note: file that the others' numbers are written to.
        itself: whether it is this process that is lost.
        work: seconds of work that nothing interrupts.
    """

    note: str
    itself: bool = False
    work: float = 0.0

    def __call__(self):
        others = children()
        Path(self.note).write_text(" ".join(map(str, others)))
        for process in [os.getpid()] if self.itself else others:
            os.kill(process, signal.SIGKILL)
        time.sleep(self.work)


class CtrlC:
    """Sends all processes of a run what a terminal sends them."""

    def __call__(self):
        for process in (*children(), os.getpid()):
            os.kill(process, signal.SIGINT)


def ends(process):
    """Whether a process comes to its end within a minute."""
    try:
        handle = os.pidfd_open(process)
    except ProcessLookupError:
        return True
    try:
        return bool(select.select([handle], [], [], MINUTE)[0])
    finally:
        os.close(handle)


def test_a_lost_process_ends_the_others_within_a_minute(runner, whole, walked, tmp_path):
    """Five runs of two processes at once: their starts are most of the time."""
    new = replace(walked, folder=tmp_path / "new")
    choose = [word for word in walked.words("select", *TWO) if "fraction" not in word]
    saving = "coincide_pl.selection.selection:Selection.save"
    runs = {
        "predict": (new.words("predict", *TWO), AtCall(PREDICT, 2, Lose(f"{tmp_path}/a"))),
        "long work": (
            [*choose, "--data.fraction=0.3", f"--trainer.default_root_dir={tmp_path}/b"],
            AtCall(saving, 1, Lose(f"{tmp_path}/b.txt", work=MINUTE)),
        ),
        "first": (
            [*choose, "--data.fraction=0.4", f"--trainer.default_root_dir={tmp_path}/c"],
            AtCall(saving, 1, Lose(f"{tmp_path}/c.txt", itself=True)),
        ),
        "asked": (
            walked.words("fit", *TWO, f"--trainer.default_root_dir={tmp_path}/d"),
            AtCall(STEP, 2, Send(signal.SIGTERM)),
        ),
    }
    typed = replace(walked, folder=tmp_path / "typed")
    runs["typed"] = (typed.words("predict", *TWO), AtCall(PREDICT, 2, CtrlC()))
    under_way = {
        name: runner.start(*words, fault=All((HURRY, fault)))
        for name, (words, fault) in runs.items()
    }
    ended = {name: one.end(MINUTE) for name, one in under_way.items()}
    for name in ("predict", "long work"):
        assert ended[name].status == os.EX_TEMPFAIL, ended[name].message
        assert ended[name].is_clean, ended[name].message
        assert "(rank 1) ended with SIGKILL; the same command goes on from here" in ended[name].line
    assert ended["first"].status == -signal.SIGKILL
    (other,) = (tmp_path / "c.txt").read_text().split()
    assert ends(int(other))
    assert "Traceback" not in ended["first"].message
    assert ended["asked"].status == 143, ended["asked"].message
    assert ended["asked"].is_clean, ended["asked"].message
    assert (tmp_path / "d/checkpoints/last.ckpt").is_file()
    assert ended["typed"].status == 130, ended["typed"].message
    assert ended["typed"].is_clean, ended["typed"].message
    assert ended["typed"].line == "interrupted: the same command goes on from here"
    for walk in (new, typed):
        again = runner(*walk.words("predict"))
        assert again.status == 0, again.message
        assert walk.digests().items() <= whole.digests().items()


def test_a_lost_reader_of_data_is_told_of(runner, walked):
    words = walked.words(
        "fit", "--data.num_workers=1", f"--trainer.default_root_dir={walked.folder}/w"
    )
    result = runner(*words, fault=AtCall(STEP, 2, Lose(f"{walked.folder}/pids")))
    assert result.is_clean, result.message
    assert result.status == os.EX_TEMPFAIL
    assert "DataLoader worker" in result.line
    assert "the same command goes on from here" in result.line
