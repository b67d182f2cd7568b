"""The check of a package in the engines of Java programs: what passes, what fails, what is not run and why; and tools that are missing."""

import logging
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from command_line import call
from forestbridge.archive import inspect_package
from forestbridge.consumers import JAVA_ENGINES, JavaEngine, cached_libraries, engine_libraries, find_java, run_in_java
from forestbridge.errors import PackageError, ResourceError, TrustError
from forestbridge.package import CheckReport, check_package
from java_here import require_engine, require_engines
from packages import build, graph, npy

pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

ONNX, TORCH_2_0, TORCH_2_7 = JAVA_ENGINES
RAW = np.linspace(0, 1, 128 * 128, dtype=np.float32).reshape(1, 1, 128, 128)
"""What the packages of `build` have as test input."""

Tool = Callable[[str, str], None]


def rows(report: CheckReport) -> dict[str, str]:
    """Return the status of every row in Java, by engine."""
    names = {engine.name for engine in JAVA_ENGINES}
    return {f.engine: f.status for f in report.formats if f.engine in names}


def reason(report: CheckReport, engine: JavaEngine) -> str:
    [found] = [f.reason for f in report.formats if f.engine == engine.name]
    return found


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Tool:
    """Leave a PATH of shell scripts alone; the function adds one."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))

    def add(name: str, script: str) -> None:
        (folder / name).write_text(f"#!/bin/sh\n{script}\n", encoding="ascii")
        (folder / name).chmod(0o755)

    return add


def java_of(system: str, architecture: str, *, version: str = "17.0.15") -> str:
    """A script that says of itself what Java says."""
    properties = f"printf '    os.arch = {architecture}\\n    os.name = {system}\\n' >&2"
    return f"{properties}; printf 'java.base@{version}\\njdk.compiler@{version}\\n'"


@pytest.mark.parametrize(
    "there, missing", [(("java",), "no mvn"), (("mvn",), "no java"), ((), "no java and mvn")], ids=str
)
def test_missing_tools(tool: Tool, tmp_path: Path, there: tuple[str, ...], missing: str) -> None:
    for name in there:
        tool(name, "exit 0")
    path = build(tmp_path / "a.zip")
    message = (
        rf"found {missing}; install a JDK, version 17 or newer, and Maven \(Debian, Ubuntu: apt-get install openjdk-17"
    )
    with pytest.raises(ResourceError, match=message):
        check_package(path, java=True)
    ended = call("check", path, "--java", program="ff-package")
    assert (ended.code, ended.out) == (6, "")
    assert f"expected java and mvn on the PATH to run the engines of Java programs, found {missing};" in ended.err


@pytest.mark.parametrize(
    "script, found",
    [
        ("echo 'Unrecognized option: --list-modules' >&2; exit 1", "one without compiler, or an older one"),
        ("echo java.base@17.0.15", "one without compiler"),
        (java_of("Linux", "amd64", version="11.0.2"), "version 11"),
    ],
)
def test_java_that_is_too_old_or_has_no_compiler(tool: Tool, script: str, found: str) -> None:
    tool("java", script)
    tool("mvn", "exit 0")
    with pytest.raises(ResourceError, match=f"to be a JDK, version 17 or newer, found {found}.*; install a JDK"):
        find_java()


@pytest.mark.parametrize(
    "system, architecture, platform",
    [
        ("Linux", "amd64", "linux-x86_64"),
        ("Linux", "aarch64", "linux-aarch64"),
        ("Mac OS X", "aarch64", "osx-aarch64"),
        ("Mac OS X", "x86_64", "osx-x86_64"),
        ("Windows 11", "amd64", "win-x86_64"),
    ],
)
def test_libraries_are_those_of_the_machine(tool: Tool, system: str, architecture: str, platform: str) -> None:
    tool("java", java_of(system, architecture))
    # its class path is what it was asked
    tool("mvn", 'for a in "$@"; do case $a in -Dmdep.outputFile=*) printf "%s" "$*" > "${a#*=}";; esac; done')
    tools = find_java()
    assert tools.platform == platform
    asked = (cached_libraries(TORCH_2_7, tools) or "").split()
    assert asked[0] == "-o" and "torch-2.7" in asked and f"-Dplatform={platform}" in asked


@pytest.mark.usefixtures("without_schema")
def test_engine_that_this_machine_has_not(tool: Tool, tmp_path: Path) -> None:
    tool("java", java_of("Mac OS X", "x86_64"))
    tool("mvn", "exit 1")
    path = build(
        tmp_path / "a.zip", lambda rdf: rdf["weights"].pop("onnx") and rdf["weights"]["torchscript"].pop("parent")
    )
    trust = f"sha256:{inspect_package(path).sha256}"
    with pytest.raises(
        ResourceError, match=r"expected a Java of linux-x86_64, linux-aarch64, .* found osx-x86_64; use another machine"
    ):
        engine_libraries(TORCH_2_7, find_java())
    tool("java", java_of("Linux", "riscv64"))
    report = check_package(path, java=True, trust=trust)
    assert rows(report) == dict.fromkeys((e.name for e in JAVA_ENGINES), "not run")
    assert reason(report, ONNX) == "the package has no onnx weights"
    assert reason(report, TORCH_2_0).startswith("there is none for linux-riscv64; it runs on linux-x86_64, osx-aarch64")


@pytest.mark.usefixtures("without_schema")
def test_libraries_that_cannot_be_fetched(tool: Tool, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    tool("java", java_of("Linux", "amd64"))
    tool("mvn", "echo '[ERROR] Could not resolve dependencies: unknown host'; echo '[ERROR] again'; exit 1")
    path = build(tmp_path / "a.zip")
    message = r"expected Maven to fetch the libraries of Java onnxruntime .*, found: Could not resolve .* host; connect"
    with caplog.at_level(logging.INFO), pytest.raises(ResourceError, match=message):
        check_package(path, java=True)
    said = "fetching Java onnxruntime 1.13.1 (deepImageJ) into Maven's local repository, about 63 MB"
    assert said in caplog.messages
    ended = call("check", path, "--java", program="ff-package")
    assert ended.code == 6 and f"{said}\n" in ended.err


@pytest.mark.usefixtures("without_schema")
def test_rows_of_a_package(tmp_path: Path) -> None:
    require_engines()
    path = build(tmp_path / "a.zip")
    ended = call("check", path, "--java", program="ff-package")
    assert ended.code == 0
    lines = ended.out.split("\n")
    assert (
        "✓ onnx in Java onnxruntime 1.13.1 (deepImageJ): passed  largest difference 0.0e+00, 0 of 32768 values beyond the tolerance"
        in lines
    )
    for engine in ("DJL 0.22.1, torch 2.0.0 (deepImageJ)", "DJL 0.35.1, torch 2.7.1 (QuPath)"):
        why = lines[lines.index(f"– torchscript in {engine}: not run") + 1]
        assert why.endswith(f"--trust sha256:{inspect_package(path).sha256}")


@pytest.mark.usefixtures("without_schema")
def test_wrong_test_output_and_broken_weights_fail(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    require_engines()
    monkeypatch.setitem(sys.modules, "torch", None)  # Java has its own
    files = {"test_probabilities.npy": npy(np.concatenate([RAW, 2 * RAW + np.float32(0.5)], axis=1))}
    path = build(tmp_path / "a.zip", files=files)
    trust = f"sha256:{inspect_package(path).sha256}"
    ended = call("check", path, "--java", "--json", "--trust", trust, program="ff-package")
    document = ended.json()
    assert ended.code == 1 and not document["good"]
    in_python, onnx_row, *torch_rows = document["formats"][-4:]
    assert in_python["status"] == "not run" and "needs the extra 'torch'" in in_python["reason"]
    assert (onnx_row["weights"], onnx_row["engine"], onnx_row["status"]) == ("onnx", ONNX.name, "failed")
    assert (round(onnx_row["max_abs"], 6), onnx_row["mismatched"], onnx_row["elements"]) == (0.5, 16384, 32768)
    assert "found 16384, the largest by 0.5" in onnx_row["reason"]
    for row, engine in zip(torch_rows, (TORCH_2_0, TORCH_2_7), strict=True):  # weights.pt is no TorchScript
        assert (row["engine"], row["status"], row["max_abs"]) == (engine.name, "failed", None)
        assert f"expected {engine.name} to run the torchscript weights on the test input" in row["reason"]


@pytest.mark.usefixtures("without_schema")
def test_graph_that_is_too_new_for_deepimagej(tmp_path: Path) -> None:
    require_engine(ONNX)
    report = check_package(build(tmp_path / "a.zip", files={"weights.onnx": graph(opset=18)}), java=True)
    assert report.formats[0].status == "passed" and rows(report)[ONNX.name] == "failed"
    assert "domain ai.onnx is till opset 17" in reason(report, ONNX)


def test_time_limit(tmp_path: Path) -> None:
    here = require_engine(ONNX)
    info = inspect_package(build(tmp_path / "a.zip"))
    with pytest.raises(
        PackageError, match=r"expected Java onnxruntime .* to run the test within 0\.01 s, it did not; try"
    ):
        run_in_java(info, ONNX, [RAW], **here._asdict(), seconds=0.01)


def test_torchscript_asks_for_trust(tmp_path: Path) -> None:
    info = inspect_package(build(tmp_path / "a.zip"))
    with pytest.raises(TrustError, match=r"found one that carries code .* say so with: --trust sha256:"):
        run_in_java(info, TORCH_2_0, [RAW], java="no-java", libraries="")


@pytest.mark.usefixtures("without_schema")
def test_tensors_that_java_does_not_get(tmp_path: Path, tool: Tool) -> None:
    tool("java", java_of("Linux", "amd64"))
    tool("mvn", "exit 1")

    def steps(rdf: dict) -> None:
        del rdf["config"]["forestbridge"]
        rdf["inputs"][0]["preprocessing"] = [{"id": "scale_linear", "kwargs": {"gain": 1.0, "offset": 0.0}}]

    report = check_package(build(tmp_path / "a.zip", steps), java=True)
    assert reason(report, ONNX) == "the package has steps before or after the model, which only bioimageio.core does"

    files = {"test_raw.npy": npy(RAW.astype(np.float64))}
    report = check_package(build(tmp_path / "b.zip", files=files), java=True)
    assert reason(report, ONNX) == "the check in Java takes and gives float32, raw is float64"


MORE = np.random.default_rng(0).random((1, 1, 128, 128), np.float32)


def onnx_of_two() -> bytes:
    """Return a graph of two inputs and two outputs: probabilities = raw - more, part = 2 · the upper half of more."""

    def change(model: onnx.ModelProto) -> None:
        del model.graph.node[:], model.graph.initializer[:], model.graph.output[:]
        for name, values in {"two": np.array([2], np.float32), "0": np.array([0]), "64": np.array([64])}.items():
            model.graph.initializer.append(numpy_helper.from_array(values, name))
        shape = ["b", 1, "y", "x"]
        model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, shape))
        model.graph.node.append(helper.make_node("Slice", ["more", "0", "64", "two_axis"], ["half"]))
        model.graph.initializer.append(numpy_helper.from_array(np.array([2]), "two_axis"))
        model.graph.node.append(helper.make_node("Mul", ["half", "two"], ["part"]))
        model.graph.node.append(helper.make_node("Sub", ["raw", "more"], ["probabilities"]))
        model.graph.output.append(helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, shape))
        model.graph.output.append(helper.make_tensor_value_info("part", TensorProto.FLOAT, ["b", 1, 64, "x"]))

    return graph(extra=change)


def torchscript_of_two() -> bytes:
    """Return a module that does the same."""
    torch = pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    from forestbridge.graphs.torchscript import compile_module

    class Two(torch.nn.Module):
        def forward(self, raw, more):
            return raw - more, 2 * more[:, :, :64]

    return compile_module(Two())


@pytest.mark.parametrize("engine", JAVA_ENGINES, ids=lambda engine: engine.profile)
def test_several_inputs_and_outputs(tmp_path: Path, engine: JavaEngine) -> None:
    here = require_engine(engine)

    def change(rdf: dict) -> None:
        for side, name in (("inputs", "more"), ("outputs", "part")):
            tensor = {key: value for key, value in rdf[side][0].items() if key != "test_tensor"}
            rdf[side].append({**tensor, "id": name})

    files = {"weights.onnx": onnx_of_two()} if engine.weights == "onnx" else {"weights.pt": torchscript_of_two()}
    info = inspect_package(build(tmp_path / "a.zip", change, files=files))
    runs = run_in_java(info, engine, [RAW, MORE], **here._asdict(), trust=f"sha256:{info.sha256}")
    assert len(runs) == (1 if engine.weights == "onnx" else 3)
    for found in runs:
        np.testing.assert_array_equal(found["probabilities"], RAW - MORE)
        np.testing.assert_array_equal(found["part"], 2 * MORE[:, :, :64])


def test_another_number_of_outputs(tmp_path: Path) -> None:
    here = require_engine(ONNX)
    info = inspect_package(build(tmp_path / "a.zip", files={"weights.onnx": graph(outputs=2)}))
    with pytest.raises(PackageError, match=r"expected 1 outputs, found that Java onnxruntime .* gives 2; export"):
        run_in_java(info, ONNX, [RAW], **here._asdict())
    with pytest.raises(PackageError, match=r"found that it ended with 1: .*expected 2 inputs, found 1"):
        run_in_java(info, ONNX, [RAW, MORE], **here._asdict())
