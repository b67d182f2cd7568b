"""Packages reproduce their test in the engines that other programs have inside; `consumer_engines/README.md` says how to get them."""

import os
import shutil
import subprocess
import tempfile
import zipfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from forestbridge.package import write_package
from small_line import CELLS, STACK, STAINED, small_forest

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

SCRIPTS = Path(__file__).parent / "consumer_engines"
KINDS = {"cells": CELLS, "stained": STAINED, "stack": STACK}
SPECS = ("0.5.3.3", "0.5.4.1", "0.5.6.0", "0.5.9.1", "0.5.10.2", "0.5.14.3")
RUNTIMES = ("1.13.1", "1.15.0", "1.20.1")
PROFILES = {
    "onnx": ("RunOnnx", "weights.onnx"),
    "torch-2.0": ("RunTorchScript", "weights.pt"),
    "torch-2.7": ("RunTorchScript", "weights.pt"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `unpacked` puts its packages."""
    return tmp_path_factory.mktemp("engines")


def unpacked(folder: Path, kind: str) -> Path:
    """Write a package the first time it is asked for; return the folder with its files beside NAME.zip."""
    files = folder / kind
    if not files.exists():
        write_package(folder / f"{kind}.zip", small_forest(kind), image=KINDS[kind].image)
        with zipfile.ZipFile(folder / f"{kind}.zip") as archive:
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


@cache
def class_path(profile: str) -> str:
    """Return the class path of a profile of pom.xml without using the network, or skip."""
    missing = [tool for tool in ("java", "mvn") if shutil.which(tool) is None]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed")
    command = ["mvn", "-o", "-q", "-B", "-f", SCRIPTS / "pom.xml", "-P", profile, "dependency:build-classpath"]
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "class_path.txt"
        done = subprocess.run([*command, f"-Dmdep.outputFile={file}"], capture_output=True, check=False)
        if done.returncode:
            pytest.skip(f"Maven's local repository lacks the libraries of the profile {profile}")
        return file.read_text().strip()


def run(*command: str | Path, **environment: str) -> str:
    done = subprocess.run(
        command, capture_output=True, encoding="utf-8", env={**os.environ, **environment}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def assert_reproduced(found: np.ndarray, files: Path) -> None:
    """Hold an output against the test output; 100 of a million values may be one of ten trees away. Measured: at most 1.2e-7."""
    expected = np.load(files / "probabilities_test.npy")
    assert found.shape == expected.shape
    assert np.count_nonzero(~(np.abs(found - expected) <= 1e-6)) <= 1e-4 * expected.size


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("profile", PROFILES)
def test_java(folder: Path, profile: str, kind: str) -> None:
    libraries = class_path(profile)
    files = unpacked(folder, kind)
    program, weights = PROFILES[profile]
    raw = np.load(files / "raw_test.npy")
    raw.tofile(files / "raw.bin")
    command = ["java", "-cp", libraries, SCRIPTS / f"{program}.java", files / weights, ",".join(map(str, raw.shape))]
    # the engine unpacks its libraries there, and neither asks nor tells the network
    settings = {"DJL_CACHE_DIR": str(folder / "djl"), "DJL_OFFLINE": "true", "OPT_OUT_TRACKING": "true"}
    run(*command, files / "raw.bin", files / "found.bin", **settings)
    outputs = sorted(files.glob("found.bin*"))
    assert len(outputs) == (1 if profile == "onnx" else 3)
    for output in outputs:
        assert_reproduced(np.fromfile(output, "<f4").reshape(1, 3, *raw.shape[2:]), files)
        output.unlink()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", RUNTIMES)
def test_onnxruntime(folder: Path, version: str, kind: str) -> None:
    interpreter = python(f"onnxruntime-{version}")
    files = unpacked(folder, kind)
    script = SCRIPTS / "run_onnx.py"
    assert run(interpreter, script, files / "weights.onnx", files / "raw_test.npy", files / "found.npy") == version
    assert_reproduced(np.load(files / "found.npy"), files)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("weights", ["onnx", "torchscript"])
def test_core_of_ilastik(folder: Path, weights: str, kind: str) -> None:
    interpreter = python("core-0.10.2")
    unpacked(folder, kind)
    assert run(interpreter, "-W", "ignore", SCRIPTS / "run_core_test.py", folder / f"{kind}.zip", weights) == "passed"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("version", SPECS)
def test_spec(folder: Path, version: str, kind: str) -> None:
    interpreter = python(f"spec-{version}")
    unpacked(folder, kind)
    said = run(interpreter, "-W", "ignore", SCRIPTS / "validate.py", folder / f"{kind}.zip")
    assert said in ("valid-format", "passed")  # versions before 0.5.4 say passed
