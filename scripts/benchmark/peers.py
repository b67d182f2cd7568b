"""The peers of the benchmark: their environments, and their contenders as processes that run when they are told to.

Each peer has an environment of its own, `.venv-bench-NAME` in the root of the repository, since its dependencies are not
ours; Debian's packages are not installed here, only looked for. A peer that cannot run raises `PeerError`, whose message
says what is missing: the benchmark prints it and leaves the peer out.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple, Self

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


class PeerError(Exception):
    """A peer cannot be installed, started or run."""


class Peer(NamedTuple):
    """A program to compare with, and how to make the environment it runs in."""

    name: str
    contenders: tuple[str, ...]
    """Its jobs: the names of the files in contenders/."""
    requirements: tuple[str, ...] = ()
    """What to install, with the versions of all that its jobs run through."""
    interpreter: str = ""
    """Without requirements: a Python that has the peer already."""
    check: str = "pass"
    """Python that fails where something is missing that is not installed here."""
    remedy: str = ""
    """What to do then."""


FASTFILTERS_PYTHON = "FORESTBRIDGE_FASTFILTERS_PYTHON"

PEERS = (
    Peer(
        name="vigra",
        contenders=("vigra_filters", "vigra_ilastik"),
        interpreter="/usr/bin/python3",
        check="import vigra",
        remedy="apt-get install python3-vigra",
    ),
    # In neither Debian nor the Python Package Index: only conda has it.
    Peer(
        name="fastfilters",
        contenders=("fastfilters_filters",),
        interpreter=os.environ.get(FASTFILTERS_PYTHON, ""),
        check="import fastfilters",
        remedy=f"conda install -c ilastik-forge -c conda-forge fastfilters, and name its Python with {FASTFILTERS_PYTHON}=...",
    ),
    Peer(
        name="featureforest",
        contenders=("featureforest_slice",),
        requirements=(
            "featureforest==0.1.2",
            "sam2==1.1.0",  # it imports this and the next one, and does not depend on them
            "segment-anything==1.0",
            "torch==2.15.0",
            "torchvision==0.29.2",
            "numpy==2.1.3",
            "scikit-learn==1.9.1",
            "h5py==3.16.0",
            "napari==0.9.2",
            "PyQt6==6.11.0",
        ),
    ),
    Peer(
        name="convpaint",
        contenders=("convpaint_classifier",),
        requirements=(
            "napari-convpaint==1.2.0",
            "catboost==1.2.10",
            "torch==2.15.0",
            "torchvision==0.29.2",
            "numpy==2.4.6",
            "napari==0.9.2",
            "PyQt6==6.11.0",  # it imports Qt and does not depend on one
        ),
    ),
    Peer(
        name="apoc",
        contenders=("apoc_pixels",),
        requirements=(
            "apoc==0.12.0",
            "pyclesperanto-prototype==0.24.4",
            "pyopencl==2026.1.4",
            "numpy==2.4.6",
            "scikit-learn==1.9.1",
        ),
        check="import pyopencl as cl; assert any(p.get_devices(cl.device_type.CPU) for p in cl.get_platforms())",
        remedy="apt-get install pocl-opencl-icd",
    ),
    Peer(name="scikit-image", contenders=("skimage_basic",), interpreter=sys.executable),
)


def make_environment(peer: Peer, root: Path = ROOT, *, install: bool = True) -> Path:
    """Return the Python that runs a peer; install the peer first where these requirements are not installed yet.

    Parameters
    ----------
    peer
        One of `PEERS`.
    root
        Where the environment lies, in `.venv-bench-NAME`.
    install
        Whether it may be made now.

    Raises
    ------
    PeerError
        If the peer is not installed and must not be, cannot be installed, or lacks something that is not installed here.
    """
    python = Path(peer.interpreter)
    if peer.requirements:
        folder = root / f".venv-bench-{peer.name}"
        python = folder / "bin" / "python"
        state = "\n".join((*peer.requirements, sys.version)).encode()
        stamp = folder / f".installed-{hashlib.sha256(state).hexdigest()[:16]}"
        if not stamp.exists():
            if not install:
                raise PeerError(f"{peer.name} is left out; missing: {folder.name}, which a run without --quick makes")
            print(f"installing {peer.name} into {folder.name}", file=sys.stderr)
            _install(peer, folder, root)
            stamp.touch()
    # Path("") is the current folder, no file
    if not python.is_file() or subprocess.run([python, "-c", peer.check], capture_output=True, check=False).returncode:
        raise PeerError(f"{peer.name} is left out; missing: {peer.remedy}")
    return python


def _install(peer: Peer, folder: Path, root: Path) -> None:
    """Make the environment of a peer anew, with uv where there is one and with pip elsewhere.

    Raises
    ------
    PeerError
        If the installer fails; what it said stands on stderr.
    """
    uv = shutil.which("uv") or shutil.which(root / ".venv-bootstrap" / "bin" / "uv")
    python = folder / "bin" / "python"
    if folder.exists():
        shutil.rmtree(folder)
    if uv:
        make = [uv, "venv", "--quiet", "--python", sys.executable, folder]
        options = os.environ.get("FORESTBRIDGE_UV_OPTIONS", "").split()
        fill = [uv, "pip", "install", "--quiet", "--python", python, *options, *peer.requirements]
    else:
        make = [sys.executable, "-m", "venv", folder]
        fill = [python, "-m", "pip", "install", "--quiet", *peer.requirements]
    try:
        for command in (make, fill):
            subprocess.run(command, check=True, env={**os.environ, "SAM2_BUILD_CUDA": "0"})
    except subprocess.CalledProcessError as error:
        raise PeerError(f"{peer.name} is left out; installing {', '.join(peer.requirements)} failed") from error


class Figures(NamedTuple):
    """What one run of a contender took."""

    wall: float
    """Seconds."""
    cpu: float
    """Seconds of all threads and finished children."""
    extra_mib: float
    """How far the peak of the resident memory rose over input and result, in MiB."""


class Worker:
    """A contender in a process of its own that has prepared its input and waits; leave the `with` block to end it."""

    def __init__(self, python: Path, contender: str, folder: Path) -> None:
        """Start a contender and wait until it is ready; what it prints goes to FOLDER/CONTENDER.log.

        Parameters
        ----------
        python
            From `make_environment`.
        contender
            Name of a file in contenders/.
        folder
            Holds the inputs as .npy files.

        Raises
        ------
        PeerError
            If it fails to start or to prepare.
        """
        self.contender = contender
        self.log = folder / f"{contender}.log"
        command = [python, HERE / "worker.py", HERE / "contenders" / f"{contender}.py", folder]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
            )
        try:
            self.versions: dict[str, str] = self._answer()["versions"]
        except PeerError:
            self.close()
            raise

    def _answer(self) -> dict:
        """Return the next answer, or raise what went wrong."""
        assert self.process.stdout
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": f"ended with exit code {self.process.wait()}"}
        if "error" in answer:
            raise PeerError(f"{self.contender} failed: {answer['error']}; see {self.log}")
        return answer

    def _ask(self, command: str) -> dict:
        assert self.process.stdin
        print(command, file=self.process.stdin, flush=True)
        return self._answer()

    def run(self) -> Figures:
        """Run the job once."""
        return Figures(**self._ask("run"))

    def save(self, path: Path) -> None:
        """Save the result of the last run as .npy."""
        self._ask(f"save {path.resolve()}")

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin
        if not self.process.stdin.closed:
            self.process.communicate("quit\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
