"""On which device, and with or without Triton, the tests of torch code run: the CPU always, a GPU where there is one."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
import torch


class Route(NamedTuple):
    """A device, and whether Triton's kernels run on it."""

    device: str
    triton: bool

    def use(self, monkeypatch: pytest.MonkeyPatch) -> torch.device:
        """Take the route in the rest of a test."""
        for module in ("engine.torch_forest", "encoders.torch_filters"):
            monkeypatch.setattr(f"forestbridge.{module}.triton_runs_on", lambda device: self.triton)
        return torch.device(self.device)


NO_GPU = pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device: torch sees none; run these tests on a machine with a GPU"
)
NO_TRITON = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed; torch brings it on Linux")

ROUTES = {"cpu": Route("cpu", triton=False)}
if torch.cuda.is_available():
    ROUTES |= {"cuda": Route("cuda", triton=False), "cuda-triton": Route("cuda", triton=True)}

every_route = pytest.mark.parametrize("route", ROUTES.values(), ids=ROUTES)


def run_kernels(what: str, folder: Path, *, interpret: bool) -> str:
    """Run a function of `triton_kernels` in a process of its own, since Triton reads its settings when it is imported.

    Parameters
    ----------
    folder
        For what Triton compiles.
    interpret
        Whether Triton interprets kernels on the CPU.
    """
    settings = {"TRITON_CACHE_DIR": str(folder), "TRITON_INTERPRET": str(int(interpret))}
    script = Path(__file__).with_name("triton_kernels.py")
    command = [sys.executable, "-W", "error", str(script), what]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=300, env={**os.environ, **settings}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
