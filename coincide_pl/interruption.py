"""SIGTERM and Ctrl-C: what is being written is finished, then the command ends with one line."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupted(BaseException):
    """The command is to end. No `Exception`: nothing on the way may take it for its own failure."""


class Interruption:
    """Whether the command has been asked to end, and whether it may end just now.

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

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles SIGTERM and SIGINT in place of their handlers, until the block ends."""
        self.__init__()  # type: ignore[misc]
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {one: signal.getsignal(one) for one in (signal.SIGTERM, signal.SIGINT)}
        for one in before:
            signal.signal(one, self._ask)
        try:
            yield
        finally:
            for one, handler in before.items():
                signal.signal(one, handler)

    @contextmanager
    def until_the_end(self) -> Iterator[None]:
        """Marks the command as over when the block ends: a signal that comes then is ignored."""
        try:
            yield
        finally:
            self._over = True

    def _ask(self, signum: int, frame: FrameType | None) -> None:
        forked = os.getpid() != self._process
        if signum == signal.SIGINT and (forked or os.environ.get("LOCAL_RANK", "0") != "0"):
            return  # a terminal asks all processes; the first one ends the others
        if forked:
            os._exit(128 + signum)
        if self._over:
            return
        again, self.asked = self.asked is not None, signum
        if again or not (self._holding or self._in_batches):
            raise Interrupted

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


interruption = Interruption()
"""The interruption of this process; there is one."""
