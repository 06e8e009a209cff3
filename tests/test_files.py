"""Lost if these fail: files that are whole or as they were."""

import errno
import os
import subprocess
import sys

import pytest

from coincide_pl.errors import FileError
from coincide_pl.files import (
    PART,
    append,
    beside,
    content_digest,
    is_as_it_was,
    reason,
    unfinished,
    write_text,
)


def test_a_file_that_was_not_finished_is_not_there(tmp_path):
    target = tmp_path / "new" / "x.txt"

    def give_up():
        with beside(target) as aside:
            aside.write_text("half")
            raise KeyError

    with pytest.raises(KeyError):
        give_up()
    assert list(target.parent.iterdir()) == []
    write_text(target, ["a", "b"])
    with pytest.raises(KeyError):
        give_up()
    assert target.read_text() == "ab"
    assert list(target.parent.iterdir()) == [target]


def test_a_directory_is_replaced_as_one(tmp_path):
    for names in (("a", "b"), ("c",)):
        with beside(tmp_path / "model") as aside:
            aside.mkdir()
            for name in names:
                (aside / name).write_text(name)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["c"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_what_the_disk_refuses_is_one_line(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"file/x.txt: can't be written \(File exists\)"):
        write_text(tmp_path / "file" / "x.txt", ["a"])
    assert reason(OSError(errno.ENOSPC, "x")) == "No space left on device"
    assert reason(ValueError("I/O error (os error 28)")) == "No space left on device"
    assert reason(ValueError("two\nlines")) == "two lines"


def test_what_a_killed_process_left_is_removed_and_what_may_live_stays(tmp_path):
    dead = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True
    )
    mine = unfinished(tmp_path / "x")
    place, process = mine.name.split(".")[2], int(dead.stdout)
    host = os.uname().nodename
    stay = {
        "in this run": unfinished(tmp_path / "x").name,
        "alive": f".x.{place}.{os.getppid()}-0a-0{PART}",
        "a process of another container, though none here has its number": (
            f".x.{place[::-1]}.{process}-0a-0{PART}"
        ),
        "of another container with this host's name, as older versions name it": (
            f".x.{host}.{process}{PART}"
        ),
    }
    left = {
        "killed": f".x.{place}.{process}-0a-0{PART}",
        "a part of it": f".x.{place}.{process}-0a-0.body{PART}",
        "of an earlier process with this one's number": f".x.{place}.{os.getpid()}-0a-0{PART}",
        "elsewhere, a week ago": f".y.{place[::-1]}.{process}-0a-0{PART}",
    }
    for name in (*stay.values(), *left.values()):
        (tmp_path / name).write_text("")
    os.utime(tmp_path / left["elsewhere, a week ago"], (1, 1))
    write_text(tmp_path / "y.txt", ["a"])
    assert {path.name for path in tmp_path.iterdir()} == {"y.txt", *stay.values()}


def test_no_two_writes_have_a_name_in_common(tmp_path):
    code = "from coincide_pl.files import unfinished; from pathlib import Path; import sys\n"
    code += "import os; os.getpid = lambda: 7\n"  # as each container's first process has it
    code += "print(unfinished(Path(sys.argv[1])))"
    command = [sys.executable, "-c", code, str(tmp_path / "x")]
    names = {subprocess.check_output(command) for _ in range(2)}
    assert len(names) == 2
    with beside(tmp_path / "x") as one, beside(tmp_path / "x") as two:
        assert one != two
        one.write_text("1")
        two.write_text("2")


def test_lines_are_added_whole(tmp_path):
    path = tmp_path / "log" / "x.jsonl"
    append(path, "1\n")
    path.write_text("1\n2")  # cut
    append(path, "3\n")
    assert path.read_text() == "1\n2\n3\n"


def test_a_file_is_read_again_when_its_times_change(tmp_path):
    path = tmp_path / "x"
    path.write_bytes(b"abc")
    os.utime(path, ns=(1, 1))
    digest = content_digest(path)
    assert is_as_it_was(path, digest)
    path.write_bytes(b"abd")
    assert not is_as_it_was(path, digest)
    path.write_bytes(b"abc")
    assert is_as_it_was(path, digest)
