"""What people are told while a command runs, all of it on stderr: messages, warnings, progress."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from forestbridge.image.source import shown

# Markup and emoji codes would eat parts of paths such as "cells[1].tif" and "a:b:c"; wrapping would break them.
stderr = Console(stderr=True, markup=False, emoji=False, highlight=False, soft_wrap=True)

CHATTY = ("httpx", "numba", "sklearnex", "matplotlib", "bioimageio", "onnxruntime", "torch")
"""Libraries of which only errors are shown."""

SILENT = "asyncio"
"""zarr leaves tasks behind when a chunk is damaged; what asyncio says of them comes after our own message, up to Python's end."""


last_said: list[str] = []
"""The last message, for the status line of ``--macro``."""

listeners: list[Callable[[str, int, int], None]] = []
"""Told what is done, how much of it, and of how much, in place of a progress bar: the status file of ``--macro``."""


def say(message: str) -> None:
    """Print a message for people on stderr; control characters from files are shown as escapes."""
    last_said[:] = [message]
    stderr.print("\n".join(shown(line) for line in message.split("\n")))


class _Say(logging.Handler):
    """Show log records as plain messages."""

    def emit(self, record: logging.LogRecord) -> None:
        prefix = f"{record.levelname}: " if record.levelno >= logging.WARNING else ""
        say(prefix + record.getMessage())


@contextmanager
def messages_on_stderr() -> Iterator[None]:
    """Show what the library logs, and Python's warnings, while the block runs."""
    root, handler = logging.getLogger(), _Say()
    if any(isinstance(other, _Say) for other in root.handlers):
        yield  # a command that the worker runs: the worker's own block shows them
        return
    level, shown, levels = root.level, warnings.showwarning, {n: logging.getLogger(n).level for n in CHATTY}
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.getLogger(SILENT).setLevel(logging.CRITICAL)
    warnings.showwarning = _show_warning
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
        for name, previous in levels.items():
            logging.getLogger(name).setLevel(previous)
        warnings.showwarning = shown


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """Show a warning's text; where in which library it arose does not help a user."""
    say(f"WARNING: {message}")


@contextmanager
def progress_bar(what: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar with rate and time left on stderr; nothing when stderr is no terminal. Listeners are told in its place."""
    if listeners:

        def tell(done: int, total: int) -> None:
            for listener in listeners:
                listener(what, done, total)

        yield tell
        return
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=stderr, transient=True, disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
