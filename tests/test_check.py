"""The check of a package: every weight format against its own test, with numbers; code only with trust; never a connection."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from forestbridge.errors import MissingExtraError, PackageError, TrustError
from forestbridge.package import CheckReport, check_package, format_check, write_package
from packages import build, good_files, graph, npy
from small_line import CELLS, small_forest

pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

ELEMENTS = 2 * 128 * 128
"""Values of the test output of the packages that `build` makes."""


def expected_output() -> np.ndarray:
    raw = np.linspace(0, 1, 128 * 128, dtype=np.float32).reshape(1, 1, 128, 128)
    return np.concatenate([raw, 2 * raw], axis=1)


def spoiled(path: Path, values: int, by: float, change: Callable[[dict], Any] | None = None) -> Path:
    """A package whose test output has `values` numbers that are wrong `by`."""
    output = expected_output()
    output.ravel()[:values] += by
    return build(path, change, files={"test_probabilities.npy": npy(output)})


def statuses(report: CheckReport) -> list[str]:
    return [f"{f.weights} {f.engine.split()[0]} {f.status}" for f in report.formats]


def onnx_only(rdf: dict) -> None:
    del rdf["weights"]["torchscript"]


def test_good_package(tmp_path: Path) -> None:
    report = check_package(build(tmp_path / "a.zip"))
    assert statuses(report) == ["onnx forestbridge passed", "onnx bioimageio.core passed", "torchscript none not run"]
    assert [(f.max_abs, f.mismatched, f.elements) for f in report.formats[:2]] == [(0, 0, ELEMENTS)] * 2
    assert f"--trust sha256:{report.sha256}" in report.formats[2].reason
    assert report.good and report.spec_errors == () and all(verdict.ok for verdict in report.consumers)

    document = json.loads(json.dumps(report.to_json_dict()))
    assert document["path"] == str(tmp_path / "a.zip") and document["good"] is True
    assert document["sha256"] == report.sha256 and document["spec_errors"] == []
    assert document["formats"][0] == {
        "weights": "onnx",
        "engine": "forestbridge",
        "status": "passed",
        "max_abs": 0.0,
        "mismatched": 0,
        "elements": ELEMENTS,
        "reason": "",
    }
    assert document["consumers"][0]["name"] == "Python"

    lines = format_check(report).split("\n")
    assert (
        lines[0] == "✓ onnx in forestbridge: passed  largest difference 0.0e+00, 0 of 32768 values beyond the tolerance"
    )
    assert lines[2] == "– torchscript in none: not run" and "--trust" in lines[3]
    assert lines[-1] == "✓ specification: valid"


def test_description_that_is_not_valid(tmp_path: Path) -> None:
    report = check_package(build(tmp_path / "a.zip", lambda rdf: rdf.update(license="no licence at all")))
    assert not report.good and any("license" in error for error in report.spec_errors)
    assert statuses(report)[:2] == ["onnx forestbridge passed", "onnx bioimageio.core failed"]  # core validates as well
    assert "✗ specification: " in format_check(report)


@pytest.mark.usefixtures("without_schema")
def test_wrong_test_output_fails_with_numbers(tmp_path: Path) -> None:
    report = check_package(spoiled(tmp_path / "a.zip", 40, 0.5, onnx_only))
    assert not report.good
    assert statuses(report) == ["onnx forestbridge failed", "onnx bioimageio.core failed"]
    for check in report.formats:
        assert (round(check.max_abs or 0, 6), check.mismatched, check.elements) == (0.5, 40, ELEMENTS)
        assert check.reason.startswith(
            "probabilities: expected at most 3 of 32768 values to differ by more than 0.001, found 40, the largest by 0.5"
        )
    assert "✗ onnx in forestbridge: failed  largest difference 5.0e-01, 40 of 32768 values" in format_check(report)


@pytest.mark.usefixtures("without_schema")
@pytest.mark.parametrize(
    "wrong, by, entries, good",
    [
        (3, 0.5, [], True),  # 100 of a million are three here
        (4, 0.5, [], False),
        (4, 0.5, [{"mismatched_elements_per_million": 1000}], True),
        (33, 0.5, [{"mismatched_elements_per_million": 1000}], False),
        (99, 0.005, [{"absolute_tolerance": 0.006}], True),
        (99, 0.009, [{"absolute_tolerance": 0.006}], False),
        (4, 0.5, [{"weights_formats": ["torchscript"], "mismatched_elements_per_million": 1000}], False),
        (4, 0.5, [{"output_ids": ["other"], "mismatched_elements_per_million": 1000}], False),
        (4, 0.5, [{"mismatched_elements_per_million": 0}, {"mismatched_elements_per_million": 1000}], False),
    ],
)
def test_tolerance_is_the_packages(tmp_path: Path, wrong: int, by: float, entries: list[dict], good: bool) -> None:
    def change(rdf: dict) -> None:
        onnx_only(rdf)
        rdf["config"]["bioimageio"]["reproducibility_tolerance"] = entries

    report = check_package(spoiled(tmp_path / "a.zip", wrong, by, change))
    assert report.good == good
    assert statuses(report) == [
        f"onnx {engine} {'passed' if good else 'failed'}" for engine in ("forestbridge", "bioimageio.core")
    ]


@pytest.mark.usefixtures("without_schema")
def test_tolerance_that_is_no_number(tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        rdf["config"]["bioimageio"]["reproducibility_tolerance"] = [{"absolute_tolerance": "much"}]

    message = r"expected numbers in config\.bioimageio\.reproducibility_tolerance\[0\], found \['much', .*correct them"
    with pytest.raises(PackageError, match=message):
        check_package(build(tmp_path / "a.zip", change))


@pytest.mark.usefixtures("without_schema")
def test_nan_is_a_mismatch(tmp_path: Path) -> None:
    def nan(model: onnx.ModelProto) -> None:
        kernel = np.array([1, np.nan], np.float32).reshape(2, 1, 1, 1)
        model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))

    report = check_package(build(tmp_path / "a.zip", onnx_only, files={"weights.onnx": graph(extra=nan)}))
    assert not report.good and [f.status for f in report.formats] == ["failed", "failed"]
    for check in report.formats:
        assert check.mismatched == ELEMENTS // 2 and check.max_abs == 0
        assert "found 16384, the largest by NaN" in check.reason


@pytest.mark.usefixtures("without_schema")
def test_other_shape(tmp_path: Path) -> None:
    files = {"test_probabilities.npy": npy(expected_output()[..., :64])}
    report = check_package(build(tmp_path / "a.zip", onnx_only, files=files))
    assert not report.good and report.formats[0].max_abs is None
    assert report.formats[0].reason == "probabilities: expected the shape (1, 2, 128, 64), found (1, 2, 128, 128)"


@pytest.mark.usefixtures("without_schema")
def test_graph_that_does_not_run(tmp_path: Path) -> None:
    def reshape(model: onnx.ModelProto) -> None:
        shape = numpy_helper.from_array(np.array([1, 2, 7, 7]), "shape")
        model.graph.initializer.append(shape)
        model.graph.node[0].output[0] = "conv"
        model.graph.node.append(helper.make_node("Reshape", ["conv", "shape"], ["probabilities"]))

    report = check_package(build(tmp_path / "a.zip", onnx_only, files={"weights.onnx": graph(extra=reshape)}))
    assert statuses(report) == ["onnx forestbridge failed", "onnx bioimageio.core failed"]
    assert report.formats[0].reason.startswith("expected the graph to run on its test input, found: ")
    assert "Reshape" in report.formats[1].reason

    report = check_package(
        build(tmp_path / "b.zip", onnx_only, files={"weights.onnx": graph(dtype=TensorProto.DOUBLE)})
    )
    assert statuses(report) == ["onnx forestbridge failed", "onnx bioimageio.core failed"]


@pytest.mark.usefixtures("without_schema")
def test_wrong_hash_is_refused(tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        rdf["weights"]["onnx"]["sha256"] = "0" * 64

    with pytest.raises(
        PackageError, match=r"weights\.onnx\.source: expected weights\.onnx with the sha256 0000.*changed after"
    ):
        check_package(build(tmp_path / "a.zip", change))


@pytest.mark.usefixtures("without_schema")
def test_package_without_test_tensors(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match="expected a test tensor for raw, found none; the package cannot be checked"):
        check_package(build(tmp_path / "a.zip", lambda rdf: rdf["inputs"][0].pop("test_tensor")))


@pytest.mark.usefixtures("without_schema")
def test_foreign_package_with_steps(tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        onnx_only(rdf)
        del rdf["config"]["forestbridge"]
        rdf["inputs"][0]["preprocessing"] = [{"id": "scale_linear", "kwargs": {"gain": 3.0, "offset": 0.0}}]

    files = {"test_probabilities.npy": npy(3 * expected_output())}
    report = check_package(build(tmp_path / "a.zip", change, files=files))
    assert report.good and statuses(report) == ["onnx forestbridge not run", "onnx bioimageio.core passed"]
    assert (
        report.formats[0].reason == "the package has steps before or after the model, which only bioimageio.core does"
    )


@pytest.mark.usefixtures("without_schema")
def test_formats_that_are_not_run(tmp_path: Path) -> None:
    def keras(rdf: dict) -> None:
        weights = rdf["weights"].pop("torchscript")
        rdf["weights"]["keras_hdf5"] = {**weights, "tensorflow_version": "2.15.0"}
        del rdf["weights"]["keras_hdf5"]["pytorch_version"]

    report = check_package(build(tmp_path / "a.zip", keras))
    assert report.good and report.formats[-1].reason == "forestbridge checks onnx and torchscript weights"

    def elsewhere(rdf: dict) -> None:
        onnx_only(rdf)
        rdf["weights"]["onnx"]["source"] = "https://example.org/weights.onnx"

    report = check_package(build(tmp_path / "b.zip", elsewhere))
    assert not report.good  # nothing ran
    assert report.formats[0].reason == (
        "the weights are at https://example.org/weights.onnx, and packages are only read offline"
    )


@pytest.mark.usefixtures("without_schema")
def test_names_and_addresses_are_not_looked_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError(f"a connection was opened: {arguments}")

    monkeypatch.setattr("socket.socket.connect", refuse)
    monkeypatch.setattr("socket.getaddrinfo", refuse)

    def people(rdf: dict) -> None:
        onnx_only(rdf)
        rdf["authors"] = [{"name": "A. Author", "github_user": "nobody-of-this-name-at-all"}]
        rdf["maintainers"] = [{"name": "A. Author", "github_user": "nobody-of-this-name-at-all"}]
        rdf["cite"] = [{"text": "A. Author, 2026", "url": "https://no-such-host.invalid/paper"}]
        rdf["git_repo"] = "https://no-such-host.invalid/code"

    report = check_package(build(tmp_path / "a.zip", people))
    assert report.good and statuses(report) == ["onnx forestbridge passed", "onnx bioimageio.core passed"]


@pytest.mark.usefixtures("without_schema")
def test_torchscript_runs_with_trust_only(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    written = write_package(tmp_path / "a.zip", small_forest(), image=CELLS.image)
    ran = ["onnx forestbridge passed", "onnx bioimageio.core passed"]
    assert statuses(written) == [*ran, "torchscript bioimageio.core passed"]
    report = check_package(tmp_path / "a.zip")
    assert report.good and statuses(report) == [*ran, "torchscript none not run"]
    report = check_package(tmp_path / "a.zip", trust=f"sha256:{report.sha256}")
    assert report.good and statuses(report) == [*ran, "torchscript bioimageio.core passed"]
    assert report.formats[2].max_abs is not None and report.formats[2].max_abs < 1e-3
    with pytest.raises(
        TrustError, match=r"expected the file with the hash that was trusted, sha256:0000.*another file"
    ):
        check_package(tmp_path / "a.zip", trust="sha256:" + "0" * 64)
    with pytest.raises(TrustError, match=r"expected --trust with sha256: and 64 hexadecimal digits, found 'yes'"):
        check_package(tmp_path / "a.zip", trust="yes")


@pytest.mark.usefixtures("without_schema")
def test_trusted_torchscript_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason="the extra 'torch' is not installed")
    path = build(tmp_path / "a.zip")
    report = check_package(path, trust=f"sha256:{check_package(path).sha256}")
    assert not report.good and statuses(report)[2] == "torchscript bioimageio.core failed"
    assert "archive" in report.formats[2].reason and good_files()["weights.pt"] not in report.formats[2].reason.encode()


@pytest.mark.usefixtures("without_schema")
def test_without_the_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = build(tmp_path / "a.zip")
    trust = f"sha256:{check_package(path).sha256}"
    monkeypatch.setitem(sys.modules, "torch", None)  # what Python does when a package is not there
    report = check_package(path, trust=trust)
    assert report.good and report.formats[2].status == "not run"
    assert "TorchScript needs the extra 'torch'" in report.formats[2].reason
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError, match=r"running a package needs the extra 'cpu'"):
        check_package(path)
