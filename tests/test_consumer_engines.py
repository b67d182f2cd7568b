"""Packages reproduce their test in the engines that other programs have inside.

`consumer_engines/README.md` says how to get those of Python, `java/README.md` those of Java.
"""

import os
import subprocess
import zipfile
from pathlib import Path

import numpy as np
import pytest

from forestbridge.archive import inspect_package, load_tensor
from forestbridge.consumers import JAVA_ENGINES, JavaEngine, run_in_java
from forestbridge.package import write_forest_package, write_package
from java_here import require_engine
from small_line import CELLS, STACK, STAINED, small_forest

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

SCRIPTS = Path(__file__).parent / "consumer_engines"
KINDS = {"cells": CELLS, "stained": STAINED, "stack": STACK}
SPECS = ("0.5.3.3", "0.5.4.1", "0.5.6.0", "0.5.9.1", "0.5.10.2", "0.5.14.3")
RUNTIMES = ("1.13.1", "1.15.0", "1.20.1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `unpacked` puts its packages."""
    return tmp_path_factory.mktemp("engines")


def package(folder: Path, kind: str) -> Path:
    """Write a package the first time it is asked for: one of `KINDS`, or "forest", which takes feature maps."""
    path = folder / f"{kind}.zip"
    if path.exists():
        return path
    if kind == "forest":
        write_forest_package(path, small_forest(), image=CELLS.image)
    else:
        write_package(path, small_forest(kind), image=KINDS[kind].image)
    return path


def unpacked(folder: Path, kind: str) -> Path:
    """Return a folder with the files of a package."""
    files = folder / kind
    if not files.exists():
        with zipfile.ZipFile(package(folder, kind)) as archive:
            archive.extractall(files)
    return files


def python(name: str) -> Path:
    """Return the interpreter of an environment, or skip."""
    home = os.environ.get("FORESTBRIDGE_ENGINES")
    if not home:
        pytest.skip("FORESTBRIDGE_ENGINES does not name a folder with environments")
    path = Path(home) / name / "bin" / "python"
    if not path.exists():
        pytest.skip(f"there is no environment {name} in FORESTBRIDGE_ENGINES")
    return path


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def assert_reproduced(found: np.ndarray, expected: np.ndarray) -> None:
    """Hold an output against the test output; 100 of a million values may be one of ten trees away. Measured: at most 1.2e-7."""
    assert found.shape == expected.shape
    assert np.count_nonzero(~(np.abs(found - expected) <= 1e-6)) <= 1e-4 * expected.size


@pytest.mark.parametrize("kind", [*KINDS, "forest"])
@pytest.mark.parametrize("engine", JAVA_ENGINES, ids=lambda engine: engine.profile)
def test_java(folder: Path, engine: JavaEngine, kind: str) -> None:
    here = require_engine(engine)
    info = inspect_package(package(folder, kind))
    inputs = [load_tensor(info, tensor.test) for tensor in info.inputs if tensor.test]
    runs = run_in_java(info, engine, inputs, java=here.java, libraries=here.libraries, trust=f"sha256:{info.sha256}")
    assert len(runs) == (1 if engine.weights == "onnx" else 3)
    for found in runs:
        assert_reproduced(found["probabilities"], load_tensor(info, "probabilities_test.npy"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", RUNTIMES)
def test_onnxruntime(folder: Path, version: str, kind: str) -> None:
    interpreter = python(f"onnxruntime-{version}")
    files = unpacked(folder, kind)
    script = SCRIPTS / "run_onnx.py"
    assert run(interpreter, script, files / "weights.onnx", files / "raw_test.npy", files / "found.npy") == version
    assert_reproduced(np.load(files / "found.npy"), np.load(files / "probabilities_test.npy"))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["onnx", "torchscript"])
def test_core_of_ilastik(folder: Path, weights: str, kind: str) -> None:
    interpreter = python("core-0.10.2")
    said = run(interpreter, "-W", "ignore", SCRIPTS / "run_core_test.py", package(folder, kind), weights)
    assert said == "passed"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", SPECS)
def test_spec(folder: Path, version: str, kind: str) -> None:
    interpreter = python(f"spec-{version}")
    said = run(interpreter, "-W", "ignore", SCRIPTS / "validate.py", package(folder, kind))
    assert said in ("valid-format", "passed")  # versions before 0.5.4 say passed
