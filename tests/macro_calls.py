"""Commands as macros call them: in processes of their own, through the client that the Fiji commands execute."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import forestbridge
from forestbridge.fiji import client

CLIENT = Path(client.__file__)
WITHIN = 120
"""Seconds after which a call counts as hanging."""


class Reply(NamedTuple):
    """What a process wrote."""

    code: int
    out: str
    err: bytes

    @property
    def line(self) -> str:
        """The last line of stdout."""
        return self.out.splitlines()[-1] if self.out else ""

    @property
    def message(self) -> str:
        """The message of an error."""
        assert self.line.startswith("status=error message="), self
        return self.line.partition("message=")[2]


def environment(cache: Path) -> dict[str, str]:
    """Return an environment with a cache of its own, so that no worker of the user is met."""
    source = str(Path(forestbridge.__file__).parent.parent)
    return {**os.environ, "FORESTBRIDGE_CACHE": str(cache), "PYTHONPATH": source}


def execute(command: Sequence[str | Path], cache: Path, **options: str) -> Reply:
    """Run a program."""
    done = subprocess.run(
        list(map(str, command)), capture_output=True, env={**environment(cache), **options}, timeout=WITHIN, check=False
    )
    return Reply(done.returncode, done.stdout.decode(), done.stderr)


def forestbridge_call(*words: str | Path, cache: Path) -> Reply:
    """Run ``forestbridge WORDS``."""
    return execute([sys.executable, "-m", "forestbridge", *words], cache)


def client_call(*words: str | Path, cache: Path, python: str | Path = sys.executable) -> Reply:
    """Run the client as the macros do."""
    return execute([python, "-E", "-s", "-S", CLIENT, *words], cache)


def request(*words: str | Path) -> str:
    """Return a request as the macros write it."""
    return client.encode(list(map(str, words)))


def job_call(job: Path, *words: str | Path, cache: Path) -> Reply:
    """Submit a job and wait until it is done, as call.ijm does."""
    reply = client_call("submit", job, request(*words), cache=cache)
    end = time.monotonic() + WITHIN
    while reply.line.startswith("status=running"):
        assert time.monotonic() < end, reply
        reply = client_call("wait", job, cache=cache)
    return reply


def value(line: str, key: str) -> str:
    """Return a value of a status line, as ``ij.Macro.getValue`` does."""
    found = re.search(rf"(?<![a-z]){key}=", line)
    if not found:
        return ""
    rest = line[found.end() :] + " "
    if not rest.startswith("["):
        return rest.partition(" ")[0]
    depth = 0
    for n, letter in enumerate(rest):
        depth += {"[": 1, "]": -1}.get(letter, 0)
        if depth == 0:
            return rest[1:n]
    return ""
