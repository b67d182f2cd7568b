"""Files that are opened once in the life of a process: a worker that serves many calls keeps its models open."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

KEPT = 4
"""Open models that are kept; the one that was used longest ago is let go."""

_open: OrderedDict[Any, Any] = OrderedDict()


def open_once(open: Callable[..., T], path: Path, **options: Any) -> T:
    """Return ``open(path, **options)``, the one of the last call if the file is still the same.

    Parameters
    ----------
    open
        A function whose result nobody changes.
    path
        The file; another size, time of change or place on the disk makes it another one.
    options
        Values that can be hashed.
    """
    try:
        facts = path.stat()
    except OSError:
        return open(path, **options)  # which knows best what to say
    key = (open, path.resolve(), facts.st_mtime_ns, facts.st_size, facts.st_ino, tuple(sorted(options.items())))
    if key not in _open:
        _open[key] = open(path, **options)
    _open.move_to_end(key)
    while len(_open) > KEPT:
        _open.popitem(last=False)
    return _open[key]
