"""Signals that ask the command to end: what is being written is finished, and one line said."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from coincide_pl import ranks
from coincide_pl.errors import GO_ON


class Interrupted(BaseException):
    """The command is to end. No `Exception`: nothing on the way may take it for its own failure."""


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
"""What asks the command to end; SLURM can be told to send the last before a job's time is over."""
GRACE = 0.5
"""Seconds that the main thread has to hear of a signal."""


class Interruption:
    """Whether the command has been asked to end, and whether it may end just now.

    Python hears of a signal in its main thread, between two of its own steps. Inside a library that
    waits for another process it never would, so a thread listens, too, and ends the command there.

    Attributes:
        asked: the signal that asked, or None.
        agreed: whether all processes of a fit know that they end after this optimizer step.
        advice: how the user goes on.
        farewell: called before the process is ended in the place of its main thread.
    """

    def __init__(self) -> None:
        """Starts as a command that nobody has asked to end."""
        self.asked: int | None = None
        self.agreed = False
        self.advice = GO_ON
        self.farewell: Callable[[], None] = lambda: None
        self._process = os.getpid()
        self._holding = 0
        self._in_batches = False
        self._over = False
        self._heard = 0
        self._waiting = 0
        self._asked_by_another = False

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handles the signals in place of their handlers, until the block ends."""
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
                if ranks.speaks():
                    sys.stderr.write(f"interrupted: {self.advice}\n")
                    sys.stderr.flush()
                self.farewell()
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
        first, forgiven = self.asked is None, self._asked_by_another
        self.asked, self._asked_by_another = signum, forgiven and first
        again = not (first or forgiven)
        if again or not (self._holding or self._in_batches):
            raise Interrupted

    def _is_for_another(self, signum: int) -> bool:
        """Whether the first process acts on a signal: a terminal sends SIGINT to all of them.

        torchrun and srun do so instead of the terminal, and each process ends by itself.
        """
        forked = os.getpid() != self._process
        started_here = ranks.started() is None and ranks.local_rank() != 0
        return signum == signal.SIGINT and (forked or started_here)

    def ask(self) -> None:
        """Asks the command to end, for another process of the run was asked to.

        A signal may still come to this one, too. It is not taken for a second one, which would end
        the command at once.
        """
        if self.asked is not None:
            return
        self._asked_by_another = True
        if threading.current_thread() is threading.main_thread():
            self.asked = signal.SIGTERM
        else:
            os.kill(self._process, signal.SIGTERM)

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
