"""vigra, which lives in the system's Python alone: is it there, and running a script of ours with it."""

import os
import subprocess
from pathlib import Path

import pytest

SYSTEM_PYTHON = Path("/usr/bin/python3")


def require_vigra() -> None:
    """Skip without vigra, and fail where the checks of every change run."""
    found = SYSTEM_PYTHON.exists() and (
        subprocess.run([SYSTEM_PYTHON, "-I", "-c", "import vigra"], capture_output=True, check=False).returncode == 0
    )
    if not found:
        message = f"vigra is not installed for {SYSTEM_PYTHON}: apt-get install python3-vigra"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(message)


def run_vigra(script: str, *arguments: str | Path) -> None:
    """Run a script of the tests' folder with the system's Python."""
    path = Path(__file__).with_name(script)
    subprocess.run([SYSTEM_PYTHON, "-I", "-W", "ignore", path, *arguments], check=True, timeout=120)
