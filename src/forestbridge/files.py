"""Writing without leaving half a file: into a temporary name beside the target, to the disk, then moved into place."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from forestbridge.errors import OutputExistsError, ResourceError


def check_output(path: str | Path, *, overwrite: bool) -> Path:
    """Refuse an output that cannot be written, before anything is computed.

    Raises
    ------
    OutputExistsError
        If the path exists and `overwrite` is False.
    ResourceError
        If its folder does not exist or is not writable.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise OutputExistsError(
            f"expected a new output, found that {path} exists; give another name or --overwrite (overwrite=True)"
        )
    folder = path.absolute().parent
    if not folder.is_dir():
        raise ResourceError(f"expected the folder {folder} for {path.name}, found none; make it first")
    if not os.access(folder, os.W_OK):
        raise ResourceError(
            f"expected a writable folder for {path.name}, found {folder} read-only; choose another folder"
        )
    return path


@contextmanager
def new_file(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Give a temporary path in the same folder; move it onto `path` when the block ends well, remove it otherwise.

    Raises
    ------
    OutputExistsError, ResourceError
        As `check_output`, before the block runs.
    """
    path = check_output(path, overwrite=overwrite)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    try:
        yield temporary
        temporary.chmod(0o666 & ~_umask())  # some libraries make files that only their owner can read
        sync_file(temporary)
        temporary.replace(path)
        sync_folder(path.absolute().parent)
    finally:
        temporary.unlink(missing_ok=True)


def _umask() -> int:
    """Return the mask that the user's files are made with; it can only be read by setting it."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


def sync_file(path: Path) -> None:
    """Have the operating system put a file's content on the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def sync_folder(path: Path) -> None:
    """Have the operating system put a folder's names on the disk."""
    if os.name == "nt":  # Windows cannot open a folder as a file, and needs no such call after a rename
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
