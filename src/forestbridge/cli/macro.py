"""``--macro``: a command for callers that see neither exit codes nor stderr, such as macros of ImageJ.

Nothing is written to stderr: messages go to a log file. The last line of stdout is the status line:

    status=ok KEY=VALUE KEY=[VALUE WITH BLANKS] ...
    status=error message=TEXT TO THE END OF THE LINE

While it works, ``--status FILE`` says ``status=running current=3 maximum=12 message=TEXT``, and in the end the same status line; a file
FILE.cancel ends the work as Ctrl-C does. Where the caller makes a file FILE.alive, it must touch it every `PATIENCE` seconds: a caller
that is gone wants no result. Values are written as options of ImageJ are, so that ``ij.Macro.getValue`` reads them.
"""

import _thread
import datetime
import os
import shlex
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

from forestbridge.cli.messages import last_said, listeners
from forestbridge.cli.output import told
from forestbridge.fiji.client import cache_folder

PATIENCE = 10.0
"""Seconds after which a caller that does not touch its FILE.alive counts as gone."""

CHECK_EVERY = 0.1
"""Seconds between two looks for FILE.cancel."""

WRITE_EVERY = 0.2
"""Seconds between two writings of the status file."""

LOG_BYTES = 2**20
"""A log that is longer is put aside as macro.old.log."""


class Order(NamedTuple):
    """What was given with ``--macro``: where the status goes (None: to stdout only), and where the log is."""

    status: Path | None
    log: Path


class Outcome(NamedTuple):
    """How a command ended: its exit code, and its message where that is not 0."""

    code: int
    message: str = ""


def macro_order(arguments: Sequence[str]) -> Order | None:
    """Return what was ordered, before the arguments are parsed: a misspelt option must give a status line too.

    None without ``--macro``.
    """
    words = list(arguments[: arguments.index("--")] if "--" in arguments else arguments)
    if "--macro" not in words:
        return None
    status, log = _value(words, "--status"), _value(words, "--log")
    return Order(Path(status) if status else None, Path(log) if log else default_log())


def _value(words: Sequence[str], option: str) -> str | None:
    for n, word in enumerate(words):
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
        if word == option and n + 1 < len(words):
            return words[n + 1]
    return None


def default_log() -> Path:
    """Return the log file of this user."""
    return Path(cache_folder()) / "macro.log"


def run_for_macro(work: Callable[[], Outcome], order: Order, arguments: Sequence[str]) -> int:
    """Do a command's work, tell its status line on stdout and in the status file, and return its exit code.

    Parameters
    ----------
    work
        Runs the command and returns how it ended.
    arguments
        As they were given, for the log.
    """
    told.clear()
    last_said.clear()
    began = time.monotonic()
    with _stderr_to(order.log) as log:
        print(f"--- {datetime.datetime.now().isoformat(' ', 'seconds')} {shlex.join(arguments)}", file=sys.stderr)
        watch = _Watch(order.status)
        with watch.watching():
            outcome = _outcome_of(work, log)
        if outcome.code and watch.reason:
            outcome = Outcome(outcome.code, watch.reason)
        line = _final_line(outcome, log)
        print(f"{line} ({time.monotonic() - began:.3f} s)", file=sys.stderr)
        watch.write(line)
    print(line, flush=True)
    return outcome.code


def _outcome_of(work: Callable[[], Outcome], log: Path) -> Outcome:
    """Do the work. A defect of ours must give a status line too: the caller sees no traceback, and the worker serves others."""
    try:
        return work()
    except Exception as error:  # noqa: BLE001  (as the last frame of a program would)
        traceback.print_exc()
        return Outcome(
            1, f"expected to finish, found a defect of forestbridge ({error!r}); please report it with the log {log}"
        )


def _final_line(outcome: Outcome, log: Path) -> str:
    if outcome.code == 0:
        return status_line("ok", **told, log=log)
    message = outcome.message or (
        last_said[0] if last_said else "expected a good result, found that it is not; see the log"
    )
    return status_line("error", message=message)


def status_line(status: str, *, message: str | None = None, **facts: object) -> str:
    """Return a status line; `message` comes last and runs to the end of the line."""
    words = [f"status={status}", *(f"{name}={_option(str(value))}" for name, value in facts.items())]
    if message is not None:
        words.append("message=" + " ".join(message.split()))
    return " ".join(words)


def _option(value: str) -> str:
    """Return a value as ImageJ writes options: in brackets where it has blanks. Brackets that do not pair would end it early."""
    value = " ".join(value.split())
    depth = 0
    for letter in value:
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth < 0:
            break
    if depth:
        value = value.replace("[", "(").replace("]", ")")
    return f"[{value}]" if not value or " " in value or value[0] in "['" else value


def write_status(path: Path, line: str) -> None:
    """Write a status file so that a reader sees the old or the new line, never a part."""
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_text(line + "\n", encoding="utf-8")
    for _ in range(50):
        try:
            temporary.replace(path)
            return
        except PermissionError:  # on Windows while somebody reads it
            time.sleep(0.01)
    temporary.replace(path)


class _Watch:
    """Writes progress into the status file, and interrupts the main thread when the caller cancels or is gone."""

    def __init__(self, status: Path | None) -> None:
        self.reason = ""
        self._status = status
        self._written = 0.0
        self._end = threading.Event()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch while the block runs; an interruption that comes at its very end is swallowed."""
        listeners.append(self._progress)
        if self._status is None:
            try:
                yield
            finally:
                listeners.remove(self._progress)
            return
        self.write(status_line("running", current=0, maximum=0, message="started"))
        thread = threading.Thread(target=self._look, daemon=True, name="forestbridge-cancel")
        previous = _interruptible()
        thread.start()
        try:
            yield
        finally:
            self._stop(thread)
            if previous is not None:
                signal.signal(signal.SIGINT, previous)
            listeners.remove(self._progress)

    def _stop(self, thread: threading.Thread) -> None:
        try:
            self._end.set()
            thread.join()
        except KeyboardInterrupt:
            thread.join()

    def _progress(self, what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if self._status is not None and (now - self._written >= WRITE_EVERY or done == total):
            self.write(status_line("running", current=done, maximum=total, message=what))
            self._written = now

    def write(self, line: str) -> None:
        """Write the status file, if one was ordered."""
        if self._status is None:
            return
        try:
            write_status(self._status, line)
        except OSError as error:  # the folder is gone, with its caller: there is nobody to tell
            print(f"expected to write {self._status}, found: {error}", file=sys.stderr)

    def _look(self) -> None:
        assert self._status is not None
        cancel = self._status.with_name(f"{self._status.name}.cancel")
        while not self._end.wait(CHECK_EVERY):
            if cancel.exists():
                self.reason = "cancelled; what was complete is kept"
            elif gave_up(self._status):
                self.reason = (
                    f"cancelled, since the caller gave no sign of life for {PATIENCE:.0f} s; what was complete is kept"
                )
            if self.reason:
                _thread.interrupt_main()
                return


def gave_up(status: Path) -> bool:
    """Whether the caller of a run gave no sign of life for longer than `PATIENCE`."""
    return _age(status.with_name(f"{status.name}.alive")) > PATIENCE


def _age(path: Path) -> float:
    """Return the seconds since a file was touched; 0 if it is not there."""
    try:
        return time.time() - path.stat().st_mtime
    except OSError:
        return 0.0


def _interruptible() -> "signal._HANDLER | None":
    """Make sure that an interruption raises KeyboardInterrupt: programs that run in the background may ignore it."""
    if threading.current_thread() is not threading.main_thread():
        return None
    return signal.signal(signal.SIGINT, signal.default_int_handler)


@contextmanager
def _stderr_to(log: Path) -> Iterator[Path]:
    """Send stderr, of Python and of compiled libraries, to the end of a log file. Yields where it really went.

    A log that cannot be written is replaced by one in the folder for temporary files: the status line says so.
    """
    stream, path = _open_log(log)
    outer, sys.stderr = sys.stderr, stream
    handle = _duplicate_stderr()
    try:
        os.dup2(stream.fileno(), 2)
        yield path
    finally:
        stream.flush()
        if handle is not None:
            os.dup2(handle, 2)
            os.close(handle)
        sys.stderr = outer
        stream.close()


def _duplicate_stderr() -> int | None:
    try:
        return os.dup(2)
    except OSError:  # stderr is closed
        return None


def _open_log(log: Path) -> tuple[IO[str], Path]:
    try:
        log.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if log.exists() and log.stat().st_size > LOG_BYTES:
            log.replace(log.with_name("macro.old.log"))
        return log.open("a", encoding="utf-8", errors="backslashreplace"), log
    except OSError:
        handle, name = tempfile.mkstemp(prefix="forestbridge-", suffix=".log")
        return os.fdopen(handle, "w", encoding="utf-8", errors="backslashreplace"), Path(name)
