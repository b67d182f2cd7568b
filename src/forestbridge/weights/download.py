"""From a URL to a file that was checked: with resuming, and nothing left behind that is not the file."""

import hashlib
import http.client
import logging
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from forestbridge.errors import ResourceError, WeightsError
from forestbridge.weights.checkpoints import Checkpoint

_log = logging.getLogger(__name__)

Progress = Callable[[int, int], None]
"""Called with the megabytes that are there and those of the whole file."""

BLOCK = 2**20

SECONDS = 60
"""Without a byte from the server, after which a download is given up."""


def download(checkpoint: Checkpoint, path: Path, *, sha256: str | None, progress: Progress | None = None) -> str:
    """Fetch a checkpoint's file, or the rest of it, and check it.

    Parameters
    ----------
    path
        Where it goes. What came before a broken connection waits in ``<path>.partial``.
    sha256
        That it must have; None trusts what comes.

    Returns
    -------
    sha256
        Of the file.

    Raises
    ------
    ResourceError
        If the server does not give it, or the connection breaks; the part that came is kept.
    WeightsError
        If what came is not the file; nothing is kept.
    """
    partial = path.with_name(path.name + ".partial")
    if not (checkpoint.size and partial.exists() and partial.stat().st_size == checkpoint.size):
        try:
            _fetch(checkpoint, partial, path, progress)
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError) as error:
            raise ResourceError(
                f"expected to download {checkpoint.url}, found: {error}; try again, it goes on where it stopped; or fetch it with "
                f"another program and put it there as {path}"
            ) from error
    try:
        found = check_file(partial, checkpoint, sha256=sha256)
    except WeightsError:
        partial.unlink()
        raise
    partial.replace(path)
    return found


def _fetch(checkpoint: Checkpoint, partial: Path, path: Path, progress: Progress | None) -> None:
    """Write the rest of the file behind what is there."""
    there = partial.stat().st_size if partial.exists() else 0
    headers = {"User-Agent": "forestbridge"} | ({"Range": f"bytes={there}-"} if there else {})
    request = urllib.request.Request(checkpoint.url, headers=headers)
    with urllib.request.urlopen(request, timeout=SECONDS) as answer:
        if answer.headers.get_content_type() == "text/html":
            raise WeightsError(
                f"expected the weights of {checkpoint.name} at {checkpoint.url}, found a web page; fetch the file with a browser "
                f"and put it there as {path}"
            )
        if answer.status != http.client.PARTIAL_CONTENT:
            there = 0  # the server begins anew
        length = answer.headers.get("Content-Length")
        total = there + int(length) if length else checkpoint.size or checkpoint.megabytes * 10**6
        if checkpoint.size and total > checkpoint.size:
            partial.unlink(missing_ok=True)
            raise WeightsError(_size_text(checkpoint, total))
        with partial.open("ab" if there else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                if progress is not None:
                    progress(min(file.tell(), total) // 10**6, -(-total // 10**6))
            if file.tell() < total and length:
                raise http.client.IncompleteRead(b"", total - file.tell())


def check_file(path: Path, checkpoint: Checkpoint, *, sha256: str | None) -> str:
    """Return the sha256 of a file that is the checkpoint's.

    Raises
    ------
    WeightsError
        If its size or a hash is another one.
    """
    refuse_web_page(path)
    size = path.stat().st_size
    if checkpoint.size is not None and size != checkpoint.size:
        raise WeightsError(f"{path}: {_size_text(checkpoint, size)}")
    found = file_sha256(path)
    if sha256 is not None and found != sha256:
        raise WeightsError(
            f"{path}: expected the weights of {checkpoint.name} with sha256 {sha256}, found {found}; the file is damaged or "
            f"another version; download it again from {checkpoint.url}"
        )
    if sha256 is None and checkpoint.xxh128 is not None:
        _check_xxh128(path, checkpoint)
    return found


def _size_text(checkpoint: Checkpoint, size: int) -> str:
    return (
        f"expected {checkpoint.size} bytes as the weights of {checkpoint.name}, found {size}; the file is cut off or another "
        f"one; download it again from {checkpoint.url}"
    )


def _check_xxh128(path: Path, checkpoint: Checkpoint) -> None:
    """Compare the hash that micro-sam publishes. It finds damage; against forgery it does not help."""
    try:
        import xxhash
    except ImportError:
        _log.warning("%s: its xxh128 was not compared, since the package xxhash is not installed", path)
        return
    digest = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    if digest.hexdigest() != checkpoint.xxh128:
        raise WeightsError(
            f"{path}: expected the weights of {checkpoint.name} with xxh128 {checkpoint.xxh128}, found {digest.hexdigest()}; the "
            f"file is damaged or another version; download it again from {checkpoint.url}"
        )


def refuse_web_page(path: Path) -> None:
    """Refuse a page that a server gave in place of the file.

    Raises
    ------
    WeightsError
        If the file is empty, or begins as HTML does.
    """
    with path.open("rb") as file:
        start = file.read(512).lstrip()
    if not start or start.startswith(b"<"):
        found = "a web page" if start else "an empty file"
        raise WeightsError(
            f"{path}: expected a weight file, found {found}; download it again, and look at what you get"
        )


def file_sha256(path: Path) -> str:
    """Return the sha256 of a file as 64 hex digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
