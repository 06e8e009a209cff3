"""Work on blocks by several threads, each of which computes with one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


def over(items: Iterable[Item], work: Callable[[Item], Result]) -> Iterator[Result]:
    """The results of work on items, in their order, by as many threads as torch computes with.

    Products of small matrices gain nothing from threads inside, which wait for one another: with
    two threads they took longer than with one. Whole blocks beside one another do not wait.

    Args:
        items: taken as they are needed, a few ahead.
        work: on one of them; several run at a time, and torch's threads are one until all are done.
    """
    threads = torch.get_num_threads()
    if threads == 1:
        yield from map(work, items)
        return
    torch.set_num_threads(1)
    try:
        with ThreadPoolExecutor(threads) as pool:
            waiting: deque[Future[Result]] = deque()
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
    finally:
        torch.set_num_threads(threads)
