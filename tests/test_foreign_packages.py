"""Packages of other programs run on images of any size, or are refused with the reason."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from forestbridge.errors import PackageError, TrustError
from forestbridge.runner import open_package
from packages import build, graph, npy


def test_kinds_and_values(tmp_path: Path) -> None:
    def values(rdf: dict) -> None:
        rdf["config"]["forestbridge"]["classes"] = [
            {"value": 1, "name": "Grund", "colour": "#101010"},
            {"value": 700, "name": "Zellkern ü", "colour": "#ff00ff"},
        ]

    package = open_package(build(tmp_path / "a.zip", values))
    assert package.classes == ((1, 700), ("Grund", "Zellkern ü"), ("#101010", "#ff00ff"))
    picture = np.linspace(-0.4, 0.4, 80 * 90, dtype=np.float32).reshape(80, 90)
    np.testing.assert_array_equal(package.predict(picture), np.stack([picture, 2 * picture]))
    labels = package.predict(picture, kind="labels")
    assert labels.dtype == np.uint16
    np.testing.assert_array_equal(labels, np.where(picture > 0, 700, 1))
    np.testing.assert_allclose(package.predict(picture, kind="uncertainty"), 1 - np.abs(picture), atol=1e-6)
    with pytest.raises(
        ValueError, match=r"expected one of the results probabilities, labels, uncertainty, found 'mask'"
    ):
        package.predict(picture, kind="mask")  # pyright: ignore[reportArgumentType]


def box_filter(model: onnx.ModelProto) -> None:
    """Put the sum over 5 × 5 pixels, and the pixel itself, in place of the graph's two classes."""
    kernel = np.zeros((2, 1, 5, 5), np.float32)
    kernel[0], kernel[1, 0, 2, 2] = 1, 1
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(kernel, "kernel"))
    model.graph.node[0].attribute.append(helper.make_attribute("pads", [2, 2, 2, 2]))


def fixed_size(rdf: dict, size: int, halo: int) -> None:
    del rdf["config"]["forestbridge"]
    for axis in rdf["inputs"][0]["axes"][2:]:
        axis["size"] = size
    for axis in rdf["outputs"][0]["axes"][2:]:
        axis["halo"] = halo
    rdf["weights"].pop("torchscript")


@pytest.mark.parametrize("shape", [(96, 96), (97, 200), (300, 100), (50, 96), (3, 2), (1, 400)])
def test_foreign_package_of_one_size(tmp_path: Path, shape: tuple[int, int]) -> None:
    def change(rdf: dict) -> None:
        fixed_size(rdf, 96, 2)
        rdf["outputs"][0]["axes"][1]["channel_names"] = ["box", "centre"]

    data = graph(inputs=("b", 1, 96, 96), extra=box_filter)
    tensors = {"test_raw.npy": npy(np.zeros((1, 1, 96, 96), np.float32))}
    package = open_package(build(tmp_path / "a.zip", change, files={"weights.onnx": data, **tensors}))
    assert package.classes[:2] == ((1, 2), ("box", "centre"))
    picture = np.random.default_rng(0).random(shape, np.float32)
    found = package.predict(picture)
    padded = np.pad(picture, 2)
    box = sum(padded[y : y + shape[0], x : x + shape[1]] for y in range(5) for x in range(5))
    np.testing.assert_array_equal(found[1], picture)
    kept = tuple(slice(0, n if n >= 96 else max(1, n - 2)) for n in shape)  # beyond the end it is continued
    if min(shape) >= 96:
        np.testing.assert_allclose(found[0], box, rtol=1e-5)
    elif min(shape) > 2:
        np.testing.assert_allclose(found[0][kept], np.asarray(box)[kept], rtol=1e-5)


def test_foreign_package_of_one_size_that_is_all_halo(tmp_path: Path) -> None:
    data = graph(inputs=("b", 1, 64, 64))
    tensors = {"test_raw.npy": npy(np.zeros((1, 1, 64, 64), np.float32))}
    package = open_package(
        build(tmp_path / "a.zip", lambda rdf: fixed_size(rdf, 64, 32), files={"weights.onnx": data, **tensors})
    )
    assert package.predict(np.ones((64, 64))).shape == (2, 64, 64)
    assert package.predict(np.ones((30, 64))).shape == (2, 30, 64)
    message = (
        r"expected windows of more than twice the halo 32 along x, found the fixed length 64; such a package runs on"
    )
    with pytest.raises(PackageError, match=message):
        package.predict(np.ones((64, 65)), out=tmp_path / "a.npy")
    assert not (tmp_path / "a.npy").exists()


def test_foreign_package_whose_smallest_size_is_all_halo(tmp_path: Path) -> None:
    def change(rdf: dict) -> None:
        for axis in rdf["outputs"][0]["axes"][2:]:
            axis["halo"] = 40

    package = open_package(build(tmp_path / "a.zip", change))  # at least 64, in steps of 16
    for shape in ((64, 64), (70, 96), (200, 97), (1, 300)):
        picture = np.random.default_rng(1).random(shape, np.float32)
        np.testing.assert_array_equal(package.predict(picture, tile=64), np.stack([picture, 2 * picture]))


REFUSED = {
    "two outputs": (
        lambda rdf: rdf["outputs"].append({**rdf["outputs"][0], "id": "more"}),
        r"found 1 inputs and 2 outputs; packages of feature maps are run with forestbridge\.engine",
    ),
    "forest": (
        lambda rdf: rdf["config"]["forestbridge"].update(kind="forest"),
        r"expected a package from image to classes .*, found a package of kind 'forest'; packages of feature maps",
    ),
    "steps": (
        lambda rdf: rdf["inputs"][0].update(preprocessing=[{"id": "zero_mean_unit_variance", "kwargs": {}}]),
        r"found the steps zero_mean_unit_variance",
    ),
    "half the size": (
        lambda rdf: [a.update(scale=2.0) for a in rdf["outputs"][0]["axes"][2:]],
        r"found another size of y in the output",
    ),
    "offset": (
        lambda rdf: rdf["outputs"][0]["axes"][3]["size"].update(offset=-4),
        r"found another size of x in the output",
    ),
    "order": (
        lambda rdf: rdf["inputs"][0].update(axes=[rdf["inputs"][0]["axes"][n] for n in (0, 2, 3, 1)]),
        r"found the input axes b y x c",
    ),
    "dtype": (
        lambda rdf: rdf["inputs"][0].update(data={"type": "uint8"}),
        r"found the dtypes uint8 and float32",
    ),
    "classes": (
        lambda rdf: rdf["config"]["forestbridge"].update(classes=[{"value": 1, "name": "a", "colour": "#000000"}]),
        r"expected 2 classes in config\.forestbridge, one for each output channel, found 1",
    ),
    "class without name": (
        lambda rdf: rdf["config"]["forestbridge"].update(classes=[{"value": 1}, {"value": 2}]),
        r"expected value, name and colour of each class in config\.forestbridge, found KeyError\('name'\) wrong",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_packages_that_are_not_from_image_to_classes(tmp_path: Path, case: str) -> None:
    change, message = REFUSED[case]
    with pytest.raises(PackageError, match=message):
        open_package(build(tmp_path / "a.zip", change))


def test_package_without_onnx(tmp_path: Path) -> None:
    path = build(tmp_path / "a.zip", lambda rdf: rdf["weights"].pop("onnx"))
    message = r"expected ONNX weights, found torchscript; export the package with --formats onnx torchscript"
    with pytest.raises(PackageError, match=message):
        open_package(path)


def test_custom_step_needs_trust_and_is_refused_all_the_same(tmp_path: Path) -> None:
    path = build(tmp_path / "a.zip", lambda rdf: rdf["outputs"][0].update(postprocessing=[{"id": "custom"}]))
    with pytest.raises(TrustError, match=r"carries code .*--trust sha256:[0-9a-f]{64}") as refusal:
        open_package(path)
    trust = str(refusal.value).rsplit(" ", 1)[1]
    with pytest.raises(PackageError, match=r"found the steps custom"):
        open_package(path, trust=trust)


def test_graph_that_does_something_else_than_rdf_says(tmp_path: Path) -> None:
    with pytest.raises(
        PackageError, match=r"expected an ONNX graph with the outputs of rdf\.yaml: .*found: .*\(b, 3, y, x\)"
    ):
        open_package(build(tmp_path / "a.zip", files={"weights.onnx": graph(classes=3)}))

    def shrink(model: onnx.ModelProto) -> None:
        model.graph.node[0].attribute.append(helper.make_attribute("strides", [2, 2]))

    package = open_package(build(tmp_path / "b.zip", files={"weights.onnx": graph(extra=shrink)}))
    message = r"expected an output of shape \(1, 2, 64, 80\) for an input of \(1, 1, 64, 80\), found \(1, 2, 32, 40\); the graph"
    with pytest.raises(PackageError, match=message):
        package.predict(np.ones((64, 80)), out=tmp_path / "b.npy")

    def fix(model: onnx.ModelProto) -> None:
        model.graph.initializer.append(numpy_helper.from_array(np.ones((1, 2, 64, 64), np.float32), "mask"))
        model.graph.node[0].output[0] = "before"
        model.graph.node.append(helper.make_node("Add", ["before", "mask"], ["probabilities"]))

    package = open_package(build(tmp_path / "c.zip", files={"weights.onnx": graph(extra=fix)}))
    assert package.predict(np.ones((64, 64))).shape == (2, 64, 64)
    with pytest.raises(
        PackageError, match=r"expected an ONNX graph that takes an input of shape \(1, 1, 80, 80\), found: "
    ):
        package.predict(np.ones((80, 80)), out=tmp_path / "c.npy")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.zip", "b.zip", "c.zip"]
