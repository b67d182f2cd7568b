"""From a package to what the installed bioimageio.spec says about it: in a process of its own, without network."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from forestbridge.archive import inspect_package
from forestbridge.errors import PackageError, ResourceError

_SECONDS = 300


def validate_with_spec(path: Path | str) -> list[str]:
    """Validate a package with the installed bioimageio.spec.

    bioimageio.spec reads ``.env`` in the current folder, looks up names on the network and opens addresses. Here it
    runs in
    a process that starts in an empty folder, without its environment variables, and in which every connection is
    refused.
    The package is inspected first.

    Returns
    -------
    errors
        One line for each, with its key; empty for a valid package.

    Raises
    ------
    PackageError
        If `inspect_package` refuses the package.
    ResourceError
        If the validation itself did not finish.
    """
    info = inspect_package(path)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("BIOIMAGEIO_")}
    with tempfile.TemporaryDirectory() as folder:
        environment |= {
            "BIOIMAGEIO_CACHE_PATH": str(Path(folder) / "cache"),
            "CI": "false",
            "PYTHONIOENCODING": "utf-8",
        }
        command = [sys.executable, "-P", "-m", "forestbridge.consumers.schema_process", str(info.path.resolve())]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env=environment,
                capture_output=True,
                encoding="utf-8",
                timeout=_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise ResourceError(
                f"{path}: expected its validation to finish in {_SECONDS} s, it did not; try again"
            ) from error
    if done.returncode:
        raise ResourceError(
            f"{path}: expected bioimageio.spec to validate it, found that its process ended with {done.returncode}: "
            f"{done.stderr.strip()[-500:]}; check that bioimageio.spec is installed"
        )
    if (answer := json.loads(done.stdout))["sha256"] != info.sha256:
        raise PackageError(f"{path}: expected the file that was inspected, found another; do not change it meanwhile")
    return answer["errors"]
