"""Lost if these fail: one run in a directory, and a directory that is free once its run is gone."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest

from coincide_pl import owners
from coincide_pl.errors import FileError
from coincide_pl.files import PART, place, unfinished
from coincide_pl.owners import OWNER, STALE, Claim, Owner
from coincide_pl.selection.cache import Cache

ELSEWHERE = replace(Claim.own(), host="node7", place="0" * 12, process=12, since="2026-01-02")


def silent(path, seconds):
    """As a heartbeat that was given some time ago."""
    now = path.stat().st_mtime
    os.utime(path, (now - seconds, now - seconds))


def test_a_run_removes_what_a_killed_one_left_where_it_writes_nothing(tmp_path):
    dead = subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"])
    (tmp_path / "checkpoints").mkdir()
    left = tmp_path / "checkpoints" / f".last.ckpt.{place()}.{int(dead)}-0a-0{PART}"
    left.write_text("")
    with Owner(tmp_path):
        assert not left.exists()


def test_a_selection_removes_what_a_killed_one_left_of_a_step_that_is_done(tmp_path):
    cache = Cache(tmp_path, {})
    cache.save("clusters", {"labels": np.arange(3)})
    dead = subprocess.check_output([sys.executable, "-c", "import os; print(os.getpid())"])
    left = tmp_path / f".clusters.{place()}.{int(dead)}-0a-0{PART}"
    left.write_text("")
    assert cache.load("clusters") is not None
    assert not left.exists()


def test_a_second_run_is_told_of_the_first(tmp_path):
    code = (
        "import sys\nfrom coincide_pl.errors import FileError\n"
        "from coincide_pl.owners import Owner\n"
        "try: Owner(sys.argv[1]).release()\n"
        "except FileError as error: print(error)\n"
    )

    def second():
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    with Owner(tmp_path):
        said = second()
        assert f"process {os.getpid()} on " in said
        assert "wait for it, or name another directory" in said
    assert second() == ""
    assert not (tmp_path / OWNER).exists()


def test_a_killed_run_of_this_machine_is_followed_at_once(tmp_path):
    code = (
        "import sys, os, signal; from coincide_pl.owners import Owner\n"
        "Owner(sys.argv[1]); os.kill(os.getpid(), signal.SIGKILL)"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False)
    assert (tmp_path / OWNER).exists()
    with Owner(tmp_path):
        assert Claim.read((tmp_path / OWNER).read_text()).process == os.getpid()
    left = replace(Claim.own(), run="another")  # its number is this process's now
    (tmp_path / OWNER).write_text(left.text)
    again = replace(Claim.own(), process=os.getppid(), started="1")  # and here, another one's
    with Owner(tmp_path):
        pass
    (tmp_path / OWNER).write_text(again.text)
    with Owner(tmp_path):
        pass


def test_a_run_of_another_machine_is_followed_once_it_is_silent(tmp_path):
    (tmp_path / OWNER).write_text(ELSEWHERE.text)
    silent(tmp_path / OWNER, STALE - 60)
    said = (
        r"process 12 on node7, since 2026-01-02, is writing there \(last heard of 2\d\d s ago\); "
        r"wait for it, .* its place is free 5 minutes after .* or once .*/.owner is deleted"
    )
    with pytest.raises(FileError, match=said):
        Owner(tmp_path)
    assert (tmp_path / OWNER).read_text() == ELSEWHERE.text
    silent(tmp_path / OWNER, 61)
    with Owner(tmp_path):
        pass
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("text", ["", "{", "[1]", json.dumps({"host": 3}), ELSEWHERE.text[:-9]])
def test_a_damaged_claim_holds_until_it_is_old(tmp_path, text):
    (tmp_path / OWNER).write_text(text)
    with pytest.raises(FileError, match=f"{tmp_path}: another process is writing there"):
        Owner(tmp_path)
    silent(tmp_path / OWNER, STALE + 60)
    Owner(tmp_path).release()


def test_a_claim_that_came_meanwhile_is_put_back(tmp_path):
    with Owner(tmp_path) as owner:
        text = (tmp_path / OWNER).read_text()
        owner._remove(ELSEWHERE.text)  # as one who has read it before
        assert (tmp_path / OWNER).read_text() == text


def test_an_owner_gives_signs_of_life_and_ends_when_it_was_replaced(tmp_path, monkeypatch, capfd):
    ended, alive = threading.Event(), threading.Event()
    utime = os.utime

    def touched(path, *more):
        utime(path, *more)
        alive.set()

    monkeypatch.setattr(owners, "BEAT", 0.01)
    monkeypatch.setattr(os, "utime", touched)
    monkeypatch.setattr(os, "kill", lambda process, number: ended.set())
    with Owner(tmp_path):
        assert alive.wait(60)
        other = unfinished(tmp_path / OWNER)
        other.write_text(ELSEWHERE.text)
        other.replace(tmp_path / OWNER)
        assert ended.wait(60)
    assert "process 12 on node7, since 2026-01-02, has taken it over" in capfd.readouterr().err
    assert (tmp_path / OWNER).read_text() == ELSEWHERE.text


def test_no_links(tmp_path, monkeypatch):
    def refused(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    with Owner(tmp_path), pytest.raises(FileError, match=f"process {os.getpid()} on "):
        Owner(tmp_path)
    assert not any(tmp_path.iterdir())
