"""Runs the command in processes of its own that start at once, and brings faults into them.

A server process has everything imported (`preloaded`); each command is a fork of it, so it can be
killed for good. Where the command starts itself again, for the other processes of a run, the new
process is a fork of the first one from before its command began. A fault is a picklable object that
is called in the first process before the command.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import forkserver
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

COMMAND = str(Path(sys.executable).parent / "coincide")
DEVICES = "--trainer.devices="
FOREVER = 120.0
"""Seconds after which a run counts as one that hangs."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    status: int
    message: str

    @property
    def line(self) -> str:
        """The line that tells the user what is wrong."""
        lines = [x for x in self.message.splitlines() if x.startswith(("error: ", "interrupted: "))]
        return lines[-1] if lines else ""

    @property
    def is_clean(self) -> bool:
        """Whether there is one such line, a status that is not zero, and no traceback."""
        one = sum(self.message.count(f"{word}: ") for word in ("\nerror", "\ninterrupted"))
        return self.status != 0 and one == 1 and "Traceback" not in self.message


class Runner:
    """Starts commands in a folder where their output may lie."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.context = multiprocessing.get_context("forkserver")
        self.context.set_forkserver_preload(["preloaded"])
        with pytest.MonkeyPatch.context() as patch:  # where the server finds it
            patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
            forkserver.ensure_running()
        self._count = 0

    def start(self, *words: object, fault: Callable[[], None] | None = None) -> Running:
        """Starts a command."""
        self._count += 1
        output = self.folder / f"output-{self._count}.txt"
        output.touch()
        given = [str(word) for word in words]
        arguments = (given, fault, str(output), {**os.environ})
        process = self.context.Process(target=_command, args=arguments)
        process.start()
        return Running(process, output)

    def __call__(self, *words: object, fault: Callable[[], None] | None = None) -> Result:
        """Runs a command to its end."""
        return self.start(*words, fault=fault).end()


@dataclass
class Running:
    """A command under way."""

    process: Any
    output: Path

    def end(self, seconds: float = FOREVER) -> Result:
        """Waits for its end; a run that hangs is killed, and is an error."""
        self.process.join(seconds)
        if self.process.exitcode is None:
            self.process.kill()
            self.process.join()
            raise AssertionError(f"it hangs: {self.output.read_text(errors='replace')}")
        return Result(self.process.exitcode, "\n" + self.output.read_text(errors="replace"))

    def send(self, number: int) -> None:
        """Sends a signal."""
        os.kill(self.process.pid, number)


def _command(
    words: list[str], fault: Callable[[], None] | None, output: str, environ: dict[str, str]
) -> None:
    file = os.open(output, os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o644)
    os.dup2(file, 1)
    os.dup2(file, 2)
    os.environ.clear()
    os.environ.update(environ | {"WANDB_MODE": "offline", "OMP_NUM_THREADS": "1"})
    sys.argv = [COMMAND, *words]
    multiprocessing.set_start_method(None, force=True)  # the command's own for its readers of data
    signal.signal(signal.SIGINT, signal.default_int_handler)
    import torch

    torch.set_num_threads(1)
    from coincide_pl.command.main import main

    if wait_to_be_started(words) and fault is not None:
        fault()
    main()


def wait_to_be_started(words: list[str]) -> bool:
    """Forks the other processes that a command will start; whether this is still the first one.

    Lightning starts a command again by `subprocess.Popen`, with other variables of the environment.
    Here these are sent to the next of the forks, which returns False and goes on as that command.
    """
    others = []
    devices = [int(word.removeprefix(DEVICES)) for word in words if word.startswith(DEVICES)]
    for _ in range(sum(devices) - len(devices)):
        ours, theirs = socket.socketpair()
        if (pid := os.fork()) == 0:
            for _, other in others:
                other.close()
            ours.close()
            with theirs, theirs.makefile() as lines:
                line = lines.readline()
            if not line:
                os._exit(0)  # the command ended without it
            sys.argv[1:], environ = json.loads(line)
            os.environ.clear()
            os.environ.update(environ)
            return False
        theirs.close()
        others.append((pid, ours))

    class Started(subprocess.Popen[bytes]):
        """A fork in place of a new process."""

        def __init__(self, words: list[str], env: dict[str, str], cwd: None) -> None:
            self.content = json.dumps([words[2:], env])  # after Python and the command
            super().__init__(words)

        def _execute_child(self, *_: object) -> None:
            self.pid, other = others.pop(0)
            self._child_created = True
            with other:
                other.sendall(f"{self.content}\n".encode())

    launcher = import_module("lightning.pytorch.strategies.launchers.subprocess_script")
    launcher.subprocess = SimpleNamespace(Popen=Started)  # type: ignore[attr-defined]
    return True


@dataclass(frozen=True)
class AtCall:
    """Does something at the n-th call of a function, before it or after it.

    Attributes:
        place: `module:name` or `module:Class.name`.
        number: of the call, from 1.
        action: what is done; default: the process is killed.
        after: whether the call is made first.
    """

    place: str
    number: int = 1
    action: Callable[[], None] | None = None
    after: bool = False

    def __call__(self) -> None:
        module, _, path = self.place.partition(":")
        *outer, name = path.split(".")
        holder: Any = import_module(module)
        for one in outer:
            holder = getattr(holder, one)
        function, calls = getattr(holder, name), [0]

        def watched(*args: Any, **kwargs: Any) -> Any:
            calls[0] += 1
            here = calls[0] == self.number
            if here and not self.after:
                (self.action or kill)()
            result = function(*args, **kwargs)
            if here and self.after:
                (self.action or kill)()
            return result

        setattr(holder, name, watched)


@dataclass(frozen=True)
class All:
    """Several faults."""

    faults: tuple[Callable[[], None], ...]

    def __call__(self) -> None:
        for fault in self.faults:
            fault()


@dataclass(frozen=True)
class Set:
    """Gives a module's name another value."""

    place: str
    value: Any

    def __call__(self) -> None:
        module, _, name = self.place.partition(":")
        setattr(import_module(module), name, self.value)


@dataclass(frozen=True)
class Send:
    """Sends this process a signal."""

    number: int

    def __call__(self) -> None:
        os.kill(os.getpid(), self.number)


def kill() -> None:
    """Ends this process at once."""
    os.kill(os.getpid(), signal.SIGKILL)
