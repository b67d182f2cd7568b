"""Ctrl-C and SIGTERM leave no lock of Python's own taken, end what they should, and leave the program's own handlers alone."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from forestbridge.cli.interruptions import interruptible
from forestbridge.threads import ahead, as_ready, in_order

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs signals that a process can send to itself")


class Interrupting:
    """A lock during whose taking signals arrive, for `threading.Condition`."""

    def __init__(self, number: int, times: int = 1) -> None:
        self.inner = threading.Lock()
        self.acquire, self.release = self.inner.acquire, self.inner.release
        self.number, self.times = number, times

    def __enter__(self) -> bool:
        taken = self.inner.acquire()
        for _ in range(self.times):
            signal.raise_signal(self.number)
        return taken

    def __exit__(self, *_: object) -> None:
        self.inner.release()


def take(lock: Interrupting) -> list[str]:
    """Take a condition's lock, and work until an interruption comes."""
    seen = []
    with threading.Condition(lock):  # type: ignore[arg-type]
        seen.append("inside")
    for _ in range(1000):
        time.sleep(0.01)
    return seen


def test_python_leaves_locks_taken() -> None:
    """What this module is for; when this fails, Python has mended it."""
    lock = Interrupting(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        take(lock)
    assert lock.inner.locked()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_no_lock_stays_taken(number: int) -> None:
    before = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    lock = Interrupting(number)
    with interruptible(), pytest.raises(KeyboardInterrupt):
        take(lock)
    assert not lock.inner.locked()
    assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


def test_the_second_is_taken_at_once() -> None:
    lock = Interrupting(signal.SIGINT, times=2)
    start = time.monotonic()
    with interruptible(), pytest.raises(KeyboardInterrupt):
        take(lock)
    assert lock.inner.locked()
    assert time.monotonic() - start < 5


def test_one_that_comes_too_late_is_dropped() -> None:
    lock = Interrupting(signal.SIGINT)
    with interruptible(), threading.Condition(lock):  # type: ignore[arg-type]
        pass
    time.sleep(0.1)


def test_handlers_of_the_program_stay() -> None:
    seen = []
    previous = signal.signal(signal.SIGTERM, lambda *_: seen.append("ours"))
    try:
        with interruptible():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, previous)
    assert seen == ["ours"]


def test_other_threads_take_no_signals() -> None:
    def work() -> None:
        with interruptible():
            seen.append(signal.getsignal(signal.SIGINT))

    seen: list = []
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGINT)]


def slowly(n: int) -> int:
    time.sleep(0.03)
    return n


def numbers() -> Iterator[int]:
    yield from map(slowly, range(1000))


@pytest.mark.parametrize(
    "results",
    [
        lambda: in_order(slowly, range(1000), 2),
        lambda: as_ready(slowly, range(1000), 2),
        lambda: ahead(numbers()),  # type: ignore[arg-type]
    ],
    ids=["in order", "as ready", "ahead"],
)
def test_waiting_for_threads_is_interrupted(results: Callable[[], Iterator[int]]) -> None:
    killer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    seen = []
    killer.start()
    with interruptible(), pytest.raises(KeyboardInterrupt):
        seen.extend(results())
    killer.join()
    assert len(seen) < 500
    assert not [t.name for t in threading.enumerate() if t.name.startswith("forestbridge")]


def test_ignored_stays_ignored() -> None:
    """A shell starts programs in the background with Ctrl-C ignored."""
    code = """if True:
        import signal
        from forestbridge.cli.interruptions import interruptible
        with interruptible():
            signal.raise_signal(signal.SIGINT)
            print(signal.getsignal(signal.SIGINT).name)
    """
    ended = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_IGN),
    )
    assert (ended.stdout, ended.stderr, ended.returncode) == ("SIG_IGN\n", "", 0)
