"""Java, ImageJ and a screen for tests: are they here? And processes with a time limit for what runs in Java."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NoReturn

import pytest

TESTS = Path(__file__).parent
TIME_LIMIT = 300
"""Seconds. A dialog that nobody answers stops ImageJ for ever."""

DEBIAN = Path("/usr/share/java/ij.jar")
NEWEST = "1.54p"
VERSIONS = {"1.53t": DEBIAN, NEWEST: Path.home() / f".m2/repository/net/imagej/ij/{NEWEST}/ij-{NEWEST}.jar"}


def missing(message: str) -> NoReturn:
    """Skip, and fail where the checks of every change run."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)
    raise AssertionError


def require_java() -> None:
    """Skip without Java."""
    if shutil.which("java") is None:
        missing("java is not installed: apt-get install openjdk-17-jdk-headless")


@cache
def ij_jar(version: str) -> Path:
    """Return the jar of an ImageJ: "1.53t" of Debian, or "1.54p" of Maven, fetched where it is not there yet."""
    require_java()
    jar = VERSIONS[version]
    if version == NEWEST and not jar.exists() and shutil.which("mvn"):
        command = ["mvn", "-q", "-B", "-f", TESTS / "imagej" / "pom.xml", "dependency:resolve"]
        subprocess.run(command, check=False, capture_output=True, timeout=TIME_LIMIT)
    if not jar.exists():
        how = "apt-get install imagej" if jar == DEBIAN else "mvn -f tests/imagej/pom.xml dependency:resolve"
        missing(f"ImageJ {version} is not installed: {how}")
    return jar.resolve()


@contextmanager
def screen() -> Iterator[str]:
    """Start an X server without a monitor; its name is for DISPLAY."""
    if shutil.which("Xvfb") is None:
        missing("Xvfb is not installed: apt-get install xvfb")
    command = ["Xvfb", "-displayfd", "1", "-screen", "0", "1280x1024x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        assert server.stdout is not None
        try:
            yield f":{server.stdout.readline().strip()}"
        finally:
            server.terminate()


def run_python(*arguments: str | Path, **environment: str) -> str:
    """Run this Python with arguments, in a process of its own; return what it printed."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(TESTS), **environment},
    )
    try:
        output, _ = process.communicate(timeout=TIME_LIMIT)
    except subprocess.TimeoutExpired:
        process.kill()
        output, _ = process.communicate()
        pytest.fail(f"not done after {TIME_LIMIT} s:\n{output}")
    assert process.returncode == 0, output
    return output
