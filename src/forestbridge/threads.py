"""Work in threads: how many there are, pieces in any order, and pieces in order. Compiled code and files release the GIL.

Work that is done in such a thread already, and would itself be divided, is done where it is: all cores are at work.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_here = threading.local()
"""`_here.is_worker` is set in the threads of a `pool`."""


def cores() -> int:
    """Return how many cores this process may use: what a cluster or container grants, not what the machine has."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS, Windows
        return os.cpu_count() or 1


def check_threads(threads: int | None) -> int:
    """Return a number of threads, all cores for None.

    Raises
    ------
    ValueError
        If it is below 1.
    """
    if threads is not None and threads < 1:
        raise ValueError(f"expected at least one thread, found {threads}; leave it out to use all {cores()} cores")
    return threads or cores()


def pool(threads: int) -> ThreadPoolExecutor:
    """Return a pool of threads that do not divide their work any further."""

    def mark() -> None:
        _here.is_worker = True

    return ThreadPoolExecutor(threads, thread_name_prefix="forestbridge", initializer=mark)


def for_each(work: Callable[[T], object], items: Iterable[T], threads: int | None = None) -> None:
    """Do `work` on every item, in any order; the first error ends it."""
    for _ in in_order(work, items, threads):
        pass


def in_order(work: Callable[[T], R], items: Iterable[T], threads: int | None = None) -> Generator[R, None, None]:
    """Yield the results of `work` in the order of the items.

    At most twice as many items as threads are at work or wait to be yielded, so that memory is bounded. When the iteration ends
    early, what has not begun is not begun, and what is at work is waited for.
    """
    threads = check_threads(threads)
    if threads == 1 or getattr(_here, "is_worker", False):
        yield from map(work, items)
        return
    waiting: deque = deque()
    workers = pool(threads)
    try:
        for item in items:
            waiting.append(workers.submit(work, item))
            if len(waiting) == 2 * threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def ahead(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """Yield items while a thread makes the next one; when the iteration ends early, the one at work is waited for."""
    end = object()
    try:
        with ThreadPoolExecutor(1, thread_name_prefix="forestbridge") as worker:
            coming = worker.submit(next, items, end)
            while (item := coming.result()) is not end:
                coming = worker.submit(next, items, end)
                yield item  # type: ignore[misc]
    finally:
        items.close()
