"""Ctrl-C and SIGTERM, taken where they break nothing.

Python raises KeyboardInterrupt between any two instructions of the main thread, also between those that take one of its own locks
and those that give it back. A worker that needs that lock then waits for ever, and the program with it. So an interruption that
arrives inside the modules below is put off until the main thread has left them; a second one is taken at once, wherever it arrives.
"""

import _thread
import concurrent.futures._base
import concurrent.futures.thread
import logging
import queue
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

WITH_LOCKS = frozenset(
    str(module.__file__) for module in (threading, queue, logging, concurrent.futures.thread, concurrent.futures._base)
)
"""Files of the modules whose locks an exception between two instructions can leave taken."""

AGAIN_AFTER = 0.002
"""Seconds until an interruption that was put off is tried again."""


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt on Ctrl-C and SIGTERM, which clusters send when the time is over, while the block runs.

    Signals that the program around us takes, or ignores, stay as they are; threads other than the main one have none.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handler = _Handler()
    ours = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    taken = {number: usual for number, usual in ours.items() if signal.getsignal(number) == usual}
    again = threading.Thread(target=handler.send_again, daemon=True, name="forestbridge-interruptions")
    again.start()
    for number in taken:
        signal.signal(number, handler)
    try:
        yield
    finally:
        handler.is_over = True
        handler.put_off.put(None)
        again.join()
        for number, usual in taken.items():
            signal.signal(number, usual)


def is_inside(frame: FrameType | None, files: frozenset[str]) -> bool:
    """Whether a frame, or one of its callers, runs the code of one of the files."""
    while frame is not None:
        if frame.f_code.co_filename in files:
            return True
        frame = frame.f_back
    return False


class _Handler:
    """Raises KeyboardInterrupt now, or later from the same place."""

    def __init__(self) -> None:
        self.put_off: queue.SimpleQueue[signal.Signals | None] = (
            queue.SimpleQueue()
        )  # the one queue that a handler may use
        self.is_over = False
        self._waiting = False
        self._is_again = False

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if self.is_over:
            return
        is_again, self._is_again = self._is_again, False
        is_second = self._waiting and not is_again
        if is_second or not is_inside(frame, WITH_LOCKS):
            self._waiting = False
            raise KeyboardInterrupt
        self._waiting = True
        self.put_off.put(signal.Signals(number))

    def send_again(self) -> None:
        while (number := self.put_off.get()) is not None:
            time.sleep(AGAIN_AFTER)
            self._is_again = True
            _thread.interrupt_main(number)
