"""One writer per store: a lock file with host and process, and a heartbeat that shows that its owner lives."""

import json
import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from forestbridge.errors import ResourceError, StoreError
from forestbridge.stores.journal import FOLDER

_log = logging.getLogger(__name__)

LOCK = "lock"
HEARTBEAT = 5.0
"""Seconds between two touches of the lock file."""

STALE = 120.0
"""Seconds without a heartbeat after which a lock counts as left behind; clocks of two machines may differ a little."""

CREATION = 2.0
"""Seconds after which an empty lock file counts as left behind: its owner was killed between making and filling it."""


@dataclass(frozen=True)
class WriterLock:
    """The lock of a running writer."""

    path: Path
    content: bytes

    def check(self) -> None:
        """Refuse to go on when another process has taken the lock over.

        Raises
        ------
        StoreError
            If the lock is not ours any more: this process stood still for longer than `STALE`.
        """
        found = _read(self.path)
        if found != self.content:
            raise StoreError(
                f"expected to be the only writer of {self.path.parent.parent}, found that {_owner_text(found)} took "
                "over while this process stood still; let that one finish"
            )


@contextmanager
def writer_lock(store: Path) -> Iterator[WriterLock]:
    """Hold the store's lock.

    Raises
    ------
    StoreError
        If another process is writing: host, process and age of its last sign of life are named.
    ResourceError
        If the store cannot be written.
    """
    path = store / FOLDER / LOCK
    content = json.dumps({"host": socket.gethostname(), "pid": os.getpid(), "token": secrets.token_hex(8)}).encode()
    try:
        path.parent.mkdir(exist_ok=True)
        while not _create(path, content):
            _clear_stale(path)
    except OSError as error:
        raise ResourceError(
            f"expected a store that can be written, found {store}: {error.strerror}; check its permissions"
        ) from error
    stop = threading.Event()
    heart = threading.Thread(target=_beat, args=(path, content, stop), daemon=True, name="store-heartbeat")
    heart.start()
    try:
        yield WriterLock(path, content)
    finally:
        stop.set()
        heart.join()
        if _read(path) == content:
            path.unlink(missing_ok=True)


def is_alive(host: str, pid: int) -> bool:
    """Return False only if the process certainly does not run: it belongs to this host, which does not know it."""
    if host != socket.gethostname() or os.name == "nt":  # on Windows os.kill would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _create(path: Path, content: bytes) -> bool:
    try:
        handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY)
    except FileExistsError:
        return False
    try:
        os.write(handle, content)
        os.fsync(handle)
    finally:
        os.close(handle)
    return True


def _clear_stale(path: Path) -> None:
    """Take away a lock whose owner is gone; wait where that is not certain yet.

    Raises
    ------
    StoreError
        If its owner lives.
    """
    found = _read(path)
    if found is None:
        return  # released in between
    owner = _parse(found)
    age = _age(path)
    if owner is None and age < CREATION:
        time.sleep(0.1)
        return
    if owner is not None and age < STALE and is_alive(*owner):
        raise StoreError(
            f"expected to be the only writer of {path.parent.parent}, found {_owner_text(found)} writing, last seen "
            f"{age:.0f} s ago; wait until it has finished, or end that process and try again"
        )
    aside = path.with_name(f"{LOCK}.{secrets.token_hex(8)}.partial")
    try:
        path.rename(aside)
    except FileNotFoundError:
        return  # another process was faster
    if _read(aside) != found:  # a new owner came in between: give it back
        try:
            os.link(aside, path)
        except FileExistsError:
            _log.warning("%s: two processes took over one lock; the earlier one will stop", path.parent.parent)
    else:
        _log.warning("%s: took over the lock of %s, last seen %.0f s ago", path.parent.parent, _owner_text(found), age)
    aside.unlink()


def _beat(path: Path, content: bytes, stop: threading.Event) -> None:
    while not stop.wait(HEARTBEAT):
        try:
            if _read(path) != content:
                return  # taken over: the writer notices before its next shard
            os.utime(path)
        except OSError as error:
            _log.warning("cannot renew the lock %s: %s", path, error)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def _age(path: Path) -> float:
    try:
        return max(0.0, time.time() - path.stat().st_mtime)
    except FileNotFoundError:
        return 0.0


def _parse(content: bytes) -> tuple[str, int] | None:
    try:
        document = json.loads(content)
        return str(document["host"]), int(document["pid"])
    except (ValueError, KeyError, TypeError):
        return None


def _owner_text(content: bytes | None) -> str:
    owner = _parse(content or b"")
    return "another process" if owner is None else f"process {owner[1]} on {owner[0]}"
