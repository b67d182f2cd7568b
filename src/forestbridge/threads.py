"""Work in threads: how many there are, pieces in any order, and pieces in order. Compiled code and files release the GIL.

Work that is done in such a thread already, and would itself be divided, is done where it is: all cores are at work.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_here = threading.local()
"""`_here.is_worker` is set in threads that do not divide their work any further."""


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
    waiting: deque[Future[R]] = deque()
    with _pool(threads) as workers:
        for item in items:
            waiting.append(workers.submit(work, item))
            if len(waiting) == 2 * threads:
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())


def as_ready(work: Callable[[T], R], items: Iterable[T], threads: int) -> Generator[R, None, None]:
    """Yield the results of `work` as they are there; at most `threads` items are at work or wait to be yielded."""
    if threads == 1:
        yield from map(work, items)
        return
    ready: SimpleQueue[Future[R]] = SimpleQueue()
    with _pool(threads) as workers:
        at_work = 0
        for item in items:
            if at_work == threads:
                yield ready.get().result()
                at_work -= 1
            workers.submit(work, item).add_done_callback(ready.put)
            at_work += 1
        for _ in range(at_work):
            yield ready.get().result()


def ahead(items: Generator[T, None, None]) -> Generator[T, None, None]:
    """Yield items while a thread makes the next one; when the iteration ends early, the one at work is waited for."""
    end = object()
    try:
        with _pool(1, divide=True) as worker:
            coming = worker.submit(next, items, end)
            while (item := _result(coming)) is not end:
                coming = worker.submit(next, items, end)
                yield item  # type: ignore[misc]
    finally:
        items.close()


@contextmanager
def _pool(threads: int, *, divide: bool = False) -> Iterator[ThreadPoolExecutor]:
    """Yield a pool of threads; at the end, what has not begun is not begun, and what is at work is waited for."""

    def mark() -> None:
        _here.is_worker = not divide

    workers = ThreadPoolExecutor(threads, thread_name_prefix="forestbridge", initializer=mark)
    try:
        yield workers
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def _result(future: "Future[R]") -> R:
    """Wait for a result where Ctrl-C can interrupt.

    ``Future.result`` waits inside a lock that an exception at the wrong moment leaves taken; a `queue.SimpleQueue` is safe from that.
    """
    ready: SimpleQueue[Future[R]] = SimpleQueue()
    future.add_done_callback(ready.put)
    return ready.get().result()
