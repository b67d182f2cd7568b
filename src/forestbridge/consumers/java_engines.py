"""From an inspected package and inputs to what the engines inside Java programs make of them: each in a JVM of its own, offline.

Maven brings the engines: what its local repository lacks is fetched once, and nothing else here opens a connection.
"""

import json
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import PackageInfo, read_member, require_trust
from forestbridge.errors import PackageError, ResourceError

_log = logging.getLogger(__name__)

JAVA_VERSION = 17
"""Oldest Java that the programs were tested with."""

SECONDS = 300
"""Time that one engine has for a package's test, with the start of its JVM."""

_SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""For JVMs of a few seconds: half of the processor time goes into compiling what runs once."""

_FETCH_SECONDS = 3600
_PROBE_SECONDS = 60

_ARCHITECTURES = {"amd64": "x86_64", "x86_64": "x86_64", "aarch64": "aarch64", "arm64": "aarch64"}
_SYSTEMS = {"linux": "linux", "mac": "osx", "windows": "win"}


@dataclass(frozen=True)
class JavaEngine:
    """An engine that Java programs have inside.

    Attributes
    ----------
    name
        Engine, version and the program that has it.
    weights
        The format it runs.
    profile
        Of ``java/pom.xml``: its libraries.
    program
        Of the folder ``java``: what runs it.
    megabytes
        What Maven fetches for it, on Linux.
    platforms
        Where its libraries run, as DJL writes it.
    """

    name: str
    weights: Literal["onnx", "torchscript"]
    profile: str
    program: str
    megabytes: int
    platforms: tuple[str, ...]


_EVERYWHERE = ("linux-x86_64", "linux-aarch64", "osx-aarch64", "osx-x86_64", "win-x86_64")

JAVA_ENGINES = (
    JavaEngine("Java onnxruntime 1.13.1 (deepImageJ)", "onnx", "onnx", "RunOnnx.java", 63, _EVERYWHERE),
    JavaEngine(
        "DJL 0.22.1, torch 2.0.0 (deepImageJ)",
        "torchscript",
        "torch-2.0",
        "RunTorchScript.java",
        138,
        ("linux-x86_64", "osx-aarch64", "osx-x86_64", "win-x86_64"),
    ),
    JavaEngine(
        "DJL 0.35.1, torch 2.7.1 (QuPath)",
        "torchscript",
        "torch-2.7",
        "RunTorchScript.java",
        120,
        ("linux-x86_64", "linux-aarch64", "osx-aarch64", "win-x86_64"),
    ),
)


class JavaTools(NamedTuple):
    """What runs the engines on this machine: paths of ``java`` and ``mvn``, and the JVM's platform, such as "linux-x86_64"."""

    java: str
    maven: str
    platform: str


def find_java() -> JavaTools:
    """Find Java and Maven on the PATH.

    Raises
    ------
    ResourceError
        If one of them is missing, or Java is too old or without compiler; the message says what to install.
    """
    found = {"java": shutil.which("java"), "mvn": shutil.which("mvn")}
    advice = (
        f"install a JDK, version {JAVA_VERSION} or newer, and Maven "
        f"(Debian, Ubuntu: apt-get install openjdk-{JAVA_VERSION}-jdk-headless maven; conda: openjdk and maven of conda-forge)"
    )
    java, maven = found["java"], found["mvn"]
    if java is None or maven is None:
        missing = " and ".join(name for name, path in found.items() if path is None)
        raise ResourceError(
            f"expected java and mvn on the PATH to run the engines of Java programs, found no {missing}; {advice}"
        )
    command = [java, "-XshowSettings:properties", "--list-modules"]
    try:
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=_PROBE_SECONDS, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ResourceError(f"expected {java} to say its version, found: {error}; {advice}") from error
    version = re.search(r"^jdk\.compiler@(\d+)", done.stdout, re.MULTILINE)
    if version is None or int(version.group(1)) < JAVA_VERSION:
        what = "one without compiler, or an older one" if version is None else f"version {version.group(1)}"
        raise ResourceError(f"expected {java} to be a JDK, version {JAVA_VERSION} or newer, found {what}; {advice}")
    properties = dict(re.findall(r"^\s*(os\.\w+) = (.*?)\s*$", done.stdout + done.stderr, re.MULTILINE))
    return JavaTools(java, maven, _platform(properties.get("os.name", ""), properties.get("os.arch", "")))


def _platform(system: str, architecture: str) -> str:
    """Return the JVM's platform as DJL writes it; Python's own may be another."""
    first = system.split(" ")[0].lower()
    return f"{_SYSTEMS.get(first, first)}-{_ARCHITECTURES.get(architecture, architecture)}"


def cached_libraries(engine: JavaEngine, tools: JavaTools) -> str | None:
    """Return an engine's class path from Maven's local repository alone; None if something is missing there."""
    path, _ = _class_path(engine, tools, "-o")
    return path


def engine_libraries(engine: JavaEngine, tools: JavaTools) -> str:
    """Return an engine's class path; what Maven's local repository lacks is fetched.

    Raises
    ------
    ResourceError
        If the engine does not exist for this machine, or cannot be fetched.
    """
    if tools.platform not in engine.platforms:
        raise ResourceError(
            f"expected a Java of {', '.join(engine.platforms)} for {engine.name}, found {tools.platform}; use another machine"
        )
    if cached := cached_libraries(engine, tools):
        return cached
    _log.info("fetching %s into Maven's local repository, about %d MB", engine.name, engine.megabytes)
    path, said = _class_path(engine, tools)
    if path is None:
        raise ResourceError(
            f"expected Maven to fetch the libraries of {engine.name}, found: {said}; connect to the network once, or name a "
            "mirror in Maven's settings.xml"
        )
    return path


def _class_path(engine: JavaEngine, tools: JavaTools, *options: str) -> tuple[str | None, str]:
    """Return a class path, None if Maven found none; and what Maven said."""
    command = [tools.maven, *options, "-q", "-B", "-f", str(_java_file("pom.xml")), "-P", engine.profile]
    with tempfile.TemporaryDirectory(prefix="forestbridge-") as folder:
        file = Path(folder) / "class_path.txt"
        command += [f"-Dplatform={tools.platform}", f"-Dmdep.outputFile={file}", "dependency:build-classpath"]
        try:
            done = subprocess.run(
                command,
                cwd=folder,
                env={**os.environ, "MAVEN_OPTS": " ".join([*_SHORT_LIVED, os.environ.get("MAVEN_OPTS", "")])},
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                timeout=_FETCH_SECONDS,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            return None, str(error)
        said = next((line for line in done.stdout.splitlines() if line.startswith("[ERROR]")), done.stderr.strip())
        if done.returncode or not file.is_file():
            return None, said.removeprefix("[ERROR]").strip()[:500]
        return file.read_text(encoding="utf-8").strip(), ""


def _java_file(name: str) -> Path:
    return Path(str(files("forestbridge.consumers") / "java" / name))


def run_in_java(
    info: PackageInfo,
    engine: JavaEngine,
    inputs: Sequence[NDArray[np.float32]],
    *,
    java: str,
    libraries: str,
    trust: str | None = None,
    seconds: float = SECONDS,
) -> list[dict[str, NDArray[np.float32]]]:
    """Run a package in the engine of a Java program.

    Parameters
    ----------
    inputs
        One array for each input of the package, in order.
    java, libraries
        The path of ``java`` from `find_java`, the class path from `engine_libraries`.
    trust
        "sha256:<hash of the zip>": TorchScript is code.
    seconds
        Time limit, with the start of the JVM.

    Returns
    -------
    runs
        The outputs of each run by tensor id: ONNX runs once, TorchScript three times, since the first two are observed and
        compiled.

    Raises
    ------
    TrustError
        If the weights are code, and `trust` is not the hash of the zip.
    PackageError
        If the package lacks weights of this engine, or they do not run there, or not in time.
    """
    entry = info.weights_of(engine.weights)
    if entry is None:
        raise PackageError(f"{info.path}: expected {engine.weights} weights for {engine.name}, found none")
    require_trust(info, trust, weights=engine.weights)
    weights = read_member(info, entry.source)
    with tempfile.TemporaryDirectory(prefix="forestbridge-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        _write_inputs(folder, inputs)
        file = folder / ("weights.onnx" if engine.weights == "onnx" else "weights.pt")
        file.write_bytes(weights)
        command = [java, *_SHORT_LIVED, f"-Djava.io.tmpdir={folder}", "-cp", libraries]
        command += [str(_java_file(engine.program)), str(file), str(folder)]
        _run_jvm(command, info, engine, folder, seconds)
        return _read_outputs(folder, info, engine)


def _run_jvm(command: Sequence[str], info: PackageInfo, engine: JavaEngine, folder: Path, seconds: float) -> None:
    try:
        done = subprocess.run(
            command,
            cwd=folder,
            env=_environment(folder),
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise PackageError(
            f"{info.path}: expected {engine.name} to run the test within {seconds:g} s, it did not; try again on a machine with "
            "less to do, or package a smaller test image"
        ) from error
    if done.returncode:
        lines = (line.strip() for line in done.stderr.splitlines())
        said = " ".join(line for line in lines if line and not line.startswith(("at ", "...", "SLF4J")))
        raise PackageError(
            f"{info.path}: expected {engine.name} to run the {engine.weights} weights on the test input, found that it ended with "
            f"{done.returncode}: {said[:1000]}; export the package again"
        )


def _environment(folder: Path) -> Mapping[str, str]:
    """Return variables with which DJL uses the libraries of the class path, unpacks them in `folder`, and leaves the network alone."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PYTORCH_", "DJL_", "ENGINE_"))}
    cache = str(folder / "djl")
    return {
        **kept,
        "DJL_OFFLINE": "true",
        "OPT_OUT_TRACKING": "true",
        "DJL_CACHE_DIR": cache,
        "ENGINE_CACHE_DIR": cache,
    }


def _write_inputs(folder: Path, inputs: Sequence[NDArray[np.float32]]) -> None:
    shapes = [",".join(map(str, array.shape)) for array in inputs]
    (folder / "inputs.txt").write_text("\n".join(shapes) + "\n", encoding="ascii")
    for n, array in enumerate(inputs):
        array.astype("<f4").tofile(folder / f"input.{n}")


def _read_outputs(folder: Path, info: PackageInfo, engine: JavaEngine) -> list[dict[str, NDArray[np.float32]]]:
    runs = []
    for run, line in enumerate((folder / "outputs.txt").read_text(encoding="ascii").splitlines()):
        shapes = json.loads(line)
        if len(shapes) != len(info.outputs):
            raise PackageError(
                f"{info.path}: expected {len(info.outputs)} outputs, found that {engine.name} gives {len(shapes)}; export the "
                "package again"
            )
        arrays = [np.fromfile(folder / f"output.{run}.{n}", "<f4").reshape(shape) for n, shape in enumerate(shapes)]
        runs.append({tensor.id: array for tensor, array in zip(info.outputs, arrays, strict=True)})
    return runs
