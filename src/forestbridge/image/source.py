"""A file or folder that pixels come from: its name for messages, and whether it is still what was opened."""

import os
from pathlib import Path
from typing import NamedTuple

from forestbridge.errors import ImageError

PathLike = str | os.PathLike[str]


class Source(NamedTuple):
    """A file as it was when it was opened."""

    path: str
    mtime_ns: int
    size: int

    @property
    def name(self) -> str:
        """The path, printable whatever bytes it holds."""
        return shown(self.path)

    def check_unchanged(self) -> None:
        """Refuse a file that is another one by now.

        Raises
        ------
        ImageError
            If it is gone, or its size or time of change differ from when it was opened.
        """
        now = open_source(self.path)
        if now != self:
            raise ImageError(
                f"{self.name}: expected the file as it was when it was opened ({self.size} bytes), found it changed "
                f"since ({now.size} bytes); let the program that writes it finish, then start again"
            )


def shown(path: PathLike) -> str:
    """Return a path that can be printed: bytes that are no UTF-8 and control characters are written as escapes."""
    text = os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def open_source(path: PathLike) -> Source:
    """Return a file or folder as it is now.

    Raises
    ------
    ImageError
        If there is none, its path cannot be one, or it may not be read.
    """
    try:
        status = Path(path).stat()
    except FileNotFoundError as error:
        raise ImageError(f"expected an image at {shown(path)}, found nothing there; check the path") from error
    except (OSError, ValueError) as error:  # a name too long, a folder closed to us; ValueError: a zero byte inside
        reason = error.strerror if isinstance(error, OSError) else error
        raise ImageError(
            f"expected an image at {shown(path)}, found no usable path ({reason}); check the path"
        ) from error
    if not os.access(path, os.R_OK):
        raise ImageError(
            f"expected a readable image, found that {shown(path)} may not be read; ask for its read permission"
        )
    return Source(os.fspath(path), status.st_mtime_ns, status.st_size)


def cut_off(name: str, expected: str, found: str) -> ImageError:
    """Return the error for a file that is shorter than it says."""
    return ImageError(f"{name}: expected {expected}, found {found}: the file is cut off; copy or export it again")
