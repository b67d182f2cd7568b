"""`nothing_runs`: a block in which no code is executed, no connection opened and no file written."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

EXECUTIONS = (
    "compile",
    "exec",
    "import",
    "marshal.loads",
    "os.exec",
    "os.posix_spawn",
    "os.system",
    "pickle.find_class",
)
EXECUTIONS += ("socket.connect", "socket.getaddrinfo", "subprocess.Popen", "ctypes.dlopen", "os.mkdir", "os.rename")
_seen: list[str] | None = None


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if _seen is None:
        return
    writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
    if event in EXECUTIONS or writes:
        _seen.append(f"{event} {arguments!r:.80}")


sys.addaudithook(_watch)


@contextmanager
def nothing_runs() -> Iterator[None]:
    """Fail if the block executes code, opens a connection, or opens a file for writing."""
    global _seen
    _seen = []
    try:
        yield
    finally:
        seen, _seen = _seen, None
    assert seen == []
