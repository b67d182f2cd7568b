"""The warm worker: one process that runs commands for others, one after the other, with its models open.

It listens on the loopback interface, on a port that the system chooses, and takes requests of one line each (the other side is
`forestbridge.fiji.client`). Port and token stand in a file that only its user can read; a request without the token gets no answer.
Commands run in the main thread, so that a cancelled one is interrupted as by Ctrl-C; their status files tell how they end.
"""

import hmac
import io
import os
import queue
import secrets
import shutil
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, NamedTuple

import forestbridge
from forestbridge.cli.macro import gave_up, status_line, write_status
from forestbridge.fiji import client

MAX_REQUEST = 2**20
"""Bytes of a request."""

TALK_WITHIN = 5.0
"""Seconds that the other side may take to send its request."""

SWEEP_EVERY = 2.0
"""Seconds between two looks for folders that nobody will remove."""

STOPPING, OLD = ["stopping"], ["old"]
"""Answers of a worker that ends: as it was told, or because forestbridge was installed anew."""

JOB_FOLDER = "forestbridge-"
"""What the folder of a job is named like; one whose caller is gone is removed."""


class Job(NamedTuple):
    """A command to run: its words, where its status is written, and the folder that its relative paths start from."""

    arguments: list[str]
    status: Path
    folder: Path


class Worker:
    """What the listening thread and the working thread share."""

    def __init__(self, token: str, idle: float) -> None:
        self._token = token
        self._idle = idle
        self._jobs: queue.Queue[Job | None] = queue.Queue()
        self._present: set[str] = set()
        self._done: set[Path] = set()
        self._installed = _installation()

    def work(self, run: Callable[[Sequence[str]], int]) -> None:
        """Run jobs until there was none for `idle` seconds, or the worker is told to stop.

        Parameters
        ----------
        run
            Runs a command line in this process and returns its exit code.
        """
        last = time.monotonic()
        while (waits := last + self._idle - time.monotonic()) > 0:
            try:
                job = self._jobs.get(timeout=min(waits, SWEEP_EVERY))
            except queue.Empty:
                self._sweep()
                continue
            if job is None:
                return
            try:
                self._run(job, run)
            finally:
                self._present.discard(str(job.status))
            last = time.monotonic()

    def _run(self, job: Job, run: Callable[[Sequence[str]], int]) -> None:
        try:
            os.chdir(job.folder)
        except OSError as error:
            message = f"expected the folder {job.folder} to start from, found: {error}; start ImageJ in another one"
            write_status(job.status, status_line("error", message=message))
        else:
            with redirect_stdout(io.StringIO()):
                run([*job.arguments, "--macro", "--status", str(job.status)])
        if job.status.parent.name.startswith(JOB_FOLDER):
            self._done.add(job.status)
        self._sweep()

    def _sweep(self) -> None:
        """Remove the folders of jobs whose callers are gone; those that took their result have removed them."""
        for status in list(self._done):
            if gave_up(status):
                shutil.rmtree(status.parent, ignore_errors=True)
            if not status.parent.exists():
                self._done.discard(status)

    def listen(self, server: socket.socket) -> None:
        """Answer requests until the socket is closed."""
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        connection.settimeout(TALK_WITHIN)
        with connection:
            try:
                with connection.makefile("rb") as lines:
                    line = lines.readline(MAX_REQUEST).decode("utf-8", "surrogateescape").rstrip("\n")
                token, version, *words = client.decode(line)
                if hmac.compare_digest(token.encode(), self._token.encode()):
                    answer = self.answer(version, words)
                    connection.sendall((client.encode(answer) + "\n").encode("utf-8", "surrogateescape"))
                    if answer in (STOPPING, OLD):
                        self._jobs.put(None)  # not before the answer: then this process may be gone
            except (OSError, ValueError):
                return  # whoever it was is not one of ours

    def answer(self, version: str, words: Sequence[str]) -> list[str]:
        """Return the answer to a request that had the token."""
        if version != str(client.VERSION):
            return [
                "refused",
                f"expected Fiji commands that speak version {client.VERSION} to forestbridge {forestbridge.__version__}, found "
                f"version {version}; copy the commands anew: forestbridge fiji install --fiji FOLDER",
            ]
        if words[:1] == ["has"]:
            return ["yes" if set(words[1:]) <= self._present else "no"]
        if _installation() != self._installed:
            return OLD
        match words:
            case ["hello"]:
                return [forestbridge.__version__, str(os.getpid())]
            case ["stop"]:
                return STOPPING
            case ["run", status, folder, *arguments]:
                return self._accept(Job(arguments, Path(status), Path(folder)))
        return ["refused", f"expected hello, has, run or stop, found {', '.join(words[:1])}; copy the commands anew"]

    def _accept(self, job: Job) -> list[str]:
        if self._present:
            write_status(job.status, status_line("running", current=0, maximum=0, message="waiting for another call"))
        self._present.add(str(job.status))
        self._jobs.put(job)
        return ["accepted"]


def _installation() -> tuple[int, ...]:
    """Return what changes when forestbridge is installed anew."""
    facts = Path(forestbridge.__file__).stat()
    return facts.st_mtime_ns, facts.st_ino, facts.st_size


def serve(run: Callable[[Sequence[str]], int], *, idle: float, ready: Callable[[int], None]) -> bool:
    """Run the worker of this Python until it is not needed any more.

    Parameters
    ----------
    run
        Runs a command line in this process and returns its exit code.
    idle
        Seconds without work after which it ends.
    ready
        Told the port.

    Returns
    -------
    served
        False if another worker of this Python runs already.
    """
    place = Path(client.worker_file())
    place.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with _only_one(place.with_suffix(".lock")) as alone:
        if not alone:
            return False
        token = secrets.token_hex(32)
        worker = Worker(token, idle)
        with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
            port = server.getsockname()[1]
            listener = threading.Thread(target=worker.listen, args=(server,), daemon=True, name="forestbridge-listen")
            listener.start()
            _publish(place, f"{port} {token} {os.getpid()}\n")
            ready(port)
            try:
                worker.work(run)
            finally:
                place.unlink(missing_ok=True)
        return True


def _publish(place: Path, facts: str) -> None:
    """Write the file that clients read, for this user's eyes only."""
    temporary = place.with_suffix(".new")
    temporary.unlink(missing_ok=True)
    handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(facts)
    temporary.replace(place)


@contextmanager
def _only_one(path: Path) -> Iterator[bool]:
    """Hold a lock that the system takes back when this process ends, however it ends. Yields whether it was free."""
    with path.open("a+") as file:
        yield _lock(file)


def _lock(file: IO[str]) -> bool:
    for _ in range(20):  # an old worker that was just told to stop lets go in a moment
        try:
            if os.name == "nt":
                import msvcrt

                msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)  # pyright: ignore[reportAttributeAccessIssue]  (Windows only)
            else:
                import fcntl

                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            time.sleep(0.05)
    return False
