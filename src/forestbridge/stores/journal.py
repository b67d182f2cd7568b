"""The journal of a store: which shards are done, with the hashes of what went in and what came out.

A line stands in the journal only when its shard is on the disk. What the journal does not name is computed again.
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from forestbridge.errors import StoreError
from forestbridge.files import new_file, sync_folder

FOLDER = "forestbridge"
RUN = "run.json"
JOURNAL = "journal.0.jsonl"
"""Journal of the only worker of this version; readers take every ``journal.*.jsonl``."""

_appending = Lock()
"""Held while a line is written, so that lines stay whole."""


@dataclass(frozen=True)
class JournalEntry:
    """One shard that is done.

    Attributes
    ----------
    shard
        Its name.
    input
        sha256 of the pixels it was computed from: core and halo.
    output
        Map → sha256 of the stored values, as little-endian bytes in C order.
    files
        Map → bytes of the shard's file.
    seconds
        Time to compute and write it.
    host, pid, time
        Who wrote it, and when (UTC, ISO 8601).
    """

    shard: str
    input: str
    output: dict[str, str]
    files: dict[str, int]
    seconds: float
    host: str
    pid: int
    time: str

    def line(self) -> bytes:
        """Return its line in the journal; `check` is the CRC-32 of the rest as canonical JSON."""
        document = asdict(self)
        return (_canonical(document | {"check": zlib.crc32(_canonical(document).encode())}) + "\n").encode()


def read_journal(store: Path) -> tuple[dict[str, JournalEntry], bool]:
    """Read what is done.

    Returns
    -------
    entries, clean
        Shard → entry; the last line of a shard counts. `clean` is False when a line was cut or damaged: such lines do
        not count.

    Raises
    ------
    StoreError
        If a journal cannot be read.
    """
    entries, clean = {}, True
    for path in sorted((store / FOLDER).glob("journal.*.jsonl")):
        try:
            text = path.read_bytes()
        except OSError as error:
            raise StoreError(
                f"expected to read the journal {path}, found: {error}; check the disk and its permissions"
            ) from error
        for line in text.splitlines(keepends=True):
            entry = _parse(line)
            if entry is None:
                clean = False
            else:
                entries[entry.shard] = entry
    return entries, clean


def append_entry(store: Path, entry: JournalEntry) -> None:
    """Add a line and have it on the disk when this returns; threads may add lines at the same time."""
    with (store / FOLDER / JOURNAL).open("ab") as file:
        with _appending:
            file.write(entry.line())
            file.flush()
        os.fsync(file.fileno())


def rewrite_journal(store: Path, entries: Iterable[JournalEntry]) -> None:
    """Replace all journals by one with these entries."""
    replace_file(store / FOLDER / JOURNAL, b"".join(entry.line() for entry in entries))
    for path in (store / FOLDER).glob("journal.*.jsonl"):
        if path.name != JOURNAL:
            path.unlink()
    sync_folder(store / FOLDER)


def input_hash(entries: Iterable[JournalEntry]) -> str:
    """Return the hash over the input hashes of all shards, whatever their order: the content of the image."""
    lines = sorted(f"{entry.shard} {entry.input}\n" for entry in entries)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def replace_file(path: Path, content: bytes) -> None:
    """Write a file whole, or leave the old one: temporary name, to the disk, renamed."""
    with new_file(path, overwrite=True) as temporary:
        temporary.write_bytes(content)


def read_document(path: Path, *, node: str) -> dict[str, Any]:
    """Read a JSON object of the store.

    Parameters
    ----------
    node
        How the message names it.

    Raises
    ------
    StoreError
        If the file is missing or no JSON object.
    """
    try:
        document = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise StoreError(
            f"expected {node} in {path}, found no such file; restore it, or extract again with --overwrite"
        ) from error
    except (OSError, ValueError) as error:
        raise StoreError(
            f"expected {node} as JSON in {path}, found: {error}; restore it, or extract again with --overwrite"
        ) from error
    if not isinstance(document, dict):
        raise StoreError(
            f"expected {node} as a JSON object in {path}, found {type(document).__name__}; extract again with "
            "--overwrite"
        )
    return document


def _parse(line: bytes) -> JournalEntry | None:
    if not line.endswith(b"\n"):
        return None  # cut by a crash; also keeps a later line from being appended to it, as the caller rewrites
    try:
        document = json.loads(line)
        check = document.pop("check")
        entry = JournalEntry(**document)
    except (ValueError, TypeError, KeyError, AttributeError):
        return None
    return entry if check == zlib.crc32(_canonical(document).encode()) else None


def _canonical(document: dict[str, Any]) -> str:
    return json.dumps(document, sort_keys=True, separators=(",", ":"), allow_nan=False)
