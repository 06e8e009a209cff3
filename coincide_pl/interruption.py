"""SIGTERM and Ctrl-C: what is being written is finished, then the command ends with one line."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The command is to end. No `Exception`: nothing on the way may take it for its own failure."""


SIGNALS = (signal.SIGTERM, signal.SIGINT)
GRACE = 0.5
"""Seconds that the main thread has to hear of a signal."""


class Interruption:
    """Whether the command has been asked to end, and whether it may end just now.

    Python hears of a signal in its main thread, between two of its own steps. Inside a library that
    waits for another process it never would, so a thread listens, too, and ends the command there.

    Attributes:
        asked: the signal that asked, or None.
        advice: how the user goes on.
    """

    def __init__(self) -> None:
        """Starts as a command that nobody has asked to end."""
        self.asked: int | None = None
        self.advice = "the same command goes on from here"
        self._process = os.getpid()
        self._holding = 0
        self._in_batches = False
        self._over = False
        self._heard = 0
        self._waiting = 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles SIGTERM and SIGINT in place of their handlers, until the block ends."""
        self.__init__()  # type: ignore[misc]
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.getsignal(one) for one in SIGNALS}
        heard, said = os.pipe()
        os.set_blocking(said, False)
        wakeup = signal.set_wakeup_fd(said, warn_on_full_buffer=False)
        threading.Thread(target=self._listen, args=(heard,), daemon=True).start()
        for one in before:
            signal.signal(one, self._ask)
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)
            signal.set_wakeup_fd(wakeup)
            os.close(said)  # the thread reads its end, and ends

    def _listen(self, pipe: int) -> None:
        """Ends the process in the place of a main thread that does not hear of a signal.

        At once where it waits for others; at the second signal wherever it is.
        """
        heard = unheard = 0
        while number := os.read(pipe, 1):
            if number[0] not in SIGNALS or self._is_for_another(number[0]):
                continue
            time.sleep(GRACE)
            if self._heard > heard:
                heard, unheard = self._heard, 0
                continue
            unheard += 1
            if self._waiting or unheard > 1:
                if os.environ.get("LOCAL_RANK", "0") == "0":
                    sys.stderr.write(f"interrupted: {self.advice}\n")
                    sys.stderr.flush()
                os._exit(128 + number[0])
        os.close(pipe)

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Marks a block that waits for other processes: nothing in it has to be finished first."""
        self._waiting += 1
        try:
            yield
        finally:
            self._waiting -= 1

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Marks the command as over when the block ends: a signal that comes then is ignored."""
        try:
            yield
        finally:
            self._over = True

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        self._heard += 1
        if self._is_for_another(signum):
            return
        if os.getpid() != self._process:  # a fork, such as a reader of data
            os._exit(128 + signum)
        if self._over:
            return
        again, self.asked = self.asked is not None, signum
        if again or not (self._holding or self._in_batches):
            raise Interrupted

    def _is_for_another(self, signum: int) -> bool:
        """Whether the first process acts on a signal: a terminal sends SIGINT to all of them."""
        forked = os.getpid() != self._process
        return signum == signal.SIGINT and (forked or os.environ.get("LOCAL_RANK", "0") != "0")

    def check(self) -> None:
        """Ends the command here if it has been asked to.

        Raises:
            Interrupted: it has been asked to.
        """
        if self.asked is not None and not self._holding:
            raise Interrupted

    @contextmanager
    def held(self) -> Iterator[None]:
        """Puts an interruption off until the block, such as the writing of a file, is done."""
        self._holding += 1
        try:
            yield
        finally:
            self._holding -= 1
        if not self._in_batches:
            self.check()

    def batches(self, on: bool) -> None:
        """Says whether batches are under way: then the command ends between two of them only.

        Args:
            on: true at the start of a batch, false when there are no more.
        """
        self._in_batches = on


def _deaf() -> None:
    """Takes a forked process off the pipe: it would report its own signals as its parent's."""
    signal.set_wakeup_fd(-1)


interruption = Interruption()
"""The interruption of this process; there is one."""
os.register_at_fork(after_in_child=_deaf)
