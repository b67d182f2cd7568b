"""ONNX files are parsed, compared with the description and opened from bytes: facts, sessions, devices and messages."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from forestbridge.archive import (
    PackageInfo,
    check_graph_against_rdf,
    inspect_package,
    load_tensor,
    onnx_facts,
    onnx_session,
    read_member,
)
from forestbridge.errors import MissingExtraError, PackageError, ResourceError
from packages import build, graph


@pytest.fixture
def good(tmp_path: Path) -> PackageInfo:
    return inspect_package(build(tmp_path / "nuclei.zip"))


def test_onnx_facts() -> None:
    facts = onnx_facts(graph(outputs=2))
    assert (facts.ir_version, facts.operators) == (8, ("Conv", "Identity"))
    assert [str(tensor) for tensor in (*facts.inputs, *facts.outputs)] == [
        "'raw' (b, 1, y, x) float32",
        "'probabilities' (b, 2, y, x) float32",
        "'extra0' (b, 2, y, x) float32",
    ]


def test_domain_listed_twice_counts_once() -> None:
    facts = onnx_facts(graph(extra=lambda model: model.opset_import.append(helper.make_opsetid("", 12))))
    assert facts.opsets["ai.onnx"] == 17


def test_own_functions_are_walked() -> None:
    def add(model: Any, inner: str) -> None:
        node = helper.make_node("Identity", ["a"], ["b"], domain=inner)
        model.functions.append(helper.make_function("own", "F", ["a"], ["b"], [node], [helper.make_opsetid("", 17)]))
        model.graph.node.append(helper.make_node("F", ["raw"], ["z"], domain="own"))

    assert "F" in onnx_facts(graph(extra=lambda model: add(model, ""))).operators
    with pytest.raises(PackageError, match="found evil::Identity"):
        onnx_facts(graph(extra=lambda model: add(model, "evil")))


@pytest.mark.parametrize(
    "data, found",
    [
        (
            graph(classes=3),
            r"expected an ONNX graph with the outputs of rdf.yaml: .*channel=2.*found: .*\(b, 3, y, x\)",
        ),
        (
            graph(inputs=("b", 3, "y", "x")),
            r"the inputs of rdf.yaml: 'raw' \(batch, channel=1, y>=64, x>=64\) float32; found: 'raw'",
        ),
        (graph(inputs=("b", 1, 96, 96)), r"found: 'raw' \(b, 1, 96, 96\) float32; export the package again"),
        (graph(inputs=("b", 1, "z", "y", "x")), r"found: 'raw' \(b, 1, z, y, x\) float32"),
        (graph(dtype=TensorProto.DOUBLE), r"found: 'raw' \(b, 1, y, x\) float64"),
    ],
)
def test_graph_that_is_not_that_of_the_description(good: PackageInfo, data: bytes, found: str) -> None:
    with pytest.raises(PackageError, match=found):
        check_graph_against_rdf(good, onnx_facts(data))


def test_graph_of_the_description(good: PackageInfo) -> None:
    for data in (graph(), graph(inputs=(1, 1, "y", "x")), graph(outputs=2)):
        check_graph_against_rdf(good, onnx_facts(data))


def test_graph_with_too_few_outputs(good: PackageInfo) -> None:
    with pytest.raises(PackageError, match=r"the outputs of rdf.yaml: 'probabilities' .*; 'again'"):
        check_graph_against_rdf(
            replace(good, outputs=(*good.outputs, replace(good.outputs[0], id="again"))), onnx_facts(graph())
        )


def test_session_runs(good: PackageInfo) -> None:
    session = onnx_session(read_member(good, "weights.onnx"), threads=1)
    (found,) = session.run(None, {"raw": load_tensor(good, "test_raw.npy")})
    np.testing.assert_array_equal(found, load_tensor(good, "test_probabilities.npy"))
    assert session.get_providers() == ["CPUExecutionProvider"]


def test_session_options() -> None:
    options = onnx_session(graph(), threads=1).get_session_options()
    assert options.intra_op_num_threads == 1
    assert options.get_session_config_entry("session.intra_op.allow_spinning") == "0"


@pytest.mark.skipif("CUDAExecutionProvider" in onnxruntime.get_available_providers(), reason="this machine has a GPU")
@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_gpu_that_is_not_there(device: str) -> None:
    with pytest.raises(
        ResourceError, match=rf"a GPU for device='{device}', found the providers .*CPUExecutionProvider; use device="
    ):
        onnx_session(graph(), device=device)


def test_auto_says_what_it_became(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    used = onnx_session(graph(), device="auto", threads=1).get_providers()[0]
    assert f"device='auto' became {used}" in caplog.text


def test_wrong_use_of_sessions() -> None:
    with pytest.raises(ValueError, match="expected the device cpu, cuda, cuda:1 or auto, found 'gpu'"):
        onnx_session(graph(), device="gpu")
    with pytest.raises(ValueError, match="expected at least 1 thread, found 0"):
        onnx_session(graph(), threads=0)


def test_opset_and_file_format_too_new() -> None:
    with pytest.raises(
        PackageError, match=r"at most ai.onnx opset \d+, which ONNX Runtime .* has, found opset 99; update"
    ):
        onnx_session(graph(opset=99))
    with pytest.raises(
        PackageError, match=r"at most IR version \d+, which ONNX Runtime .* has, found IR version 99; update"
    ):
        onnx_session(graph(ir=99))


def test_graph_that_onnx_runtime_refuses() -> None:
    with pytest.raises(PackageError, match=r"expected an ONNX graph that ONNX Runtime .* can run, found: .*Nope"):
        onnx_session(graph(extra=lambda model: model.graph.node.append(helper.make_node("Nope", ["raw"], ["z"]))))


def test_session_checks_the_bytes_first() -> None:
    with pytest.raises(PackageError, match="expected an ONNX file, found"):
        onnx_session(b"\x08\x00\x00\x00ORTM" * 9)


def test_missing_onnxruntime_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(
        MissingExtraError, match=r"running a package needs the extra 'cpu', .* pip install 'forestbridge\[cpu\]'"
    ):
        onnx_session(graph())
