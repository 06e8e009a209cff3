"""Progress of a long step: a bar on a terminal, and a line now and then where there is none."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import Progress

log = logging.getLogger(__name__)

EVERY = 60.0
"""Seconds between two lines."""


@contextmanager
def progress(step: str, total: float, shown: bool = True) -> Iterator[Callable[[float], None]]:
    """Show how far a step has come.

    Args:
        step: what is done, as a bar or line names it.
        total: how much there is to do, in any unit.
        shown: False for all but one of the processes that do the step together.

    Yields:
        A function that is told how much more has been done.
    """
    if not shown:
        yield lambda amount: None
    elif sys.stderr.isatty():
        with Progress(console=Console(stderr=True), transient=True) as bars:
            task = bars.add_task(step, total=total)
            yield lambda amount: bars.advance(task, amount)
    else:
        yield Lines(step, total).advance


class Lines:
    """Logs how far a step has come, and when it will end at this pace, at most once a minute."""

    def __init__(self, step: str, total: float) -> None:
        """Begins.

        Args:
            step: what is done.
            total: how much there is to do.
        """
        self.step, self.total, self.done = step, total, 0.0
        self.begin = self.last = time.monotonic()

    def advance(self, amount: float) -> None:
        """Notes that more has been done.

        Args:
            amount: how much more.
        """
        self.done += amount
        now = time.monotonic()
        if now - self.last < EVERY or not self.done or self.total <= 0:
            return
        self.last = now
        left = timedelta(seconds=round((now - self.begin) * (self.total / self.done - 1)))
        log.info("%s: %.0f %% done, about %s left", self.step, 100 * self.done / self.total, left)
