"""Forests over packages of others as packages: their graph inside of ours, the same numbers, their authors' names; refusals."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import yaml
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import torch
from onnx import helper
from torch import Tensor, nn

import forestbridge as fb
from command_line import call, done, write_line
from deep_networks import small_network
from foreign_encoders import Maps, exported, foreign_package, onnx_of
from forestbridge.encoders.package import PackageEncoder
from forestbridge.errors import PackageError, SpecMismatchError
from forestbridge.graphs.encoder import export_encoder_onnx
from forestbridge.package import build_recipe
from forestbridge.package.deep import exportable_encoder
from packages import to_yaml, write_zip
from test_deep_graphs import forest_over
from test_foreign_encoders import PICTURE, STEPS, network

CELL = data.cell()[100:300, 100:300]
"""(200, 200) bytes: five tiles of 48 along each axis."""

STEPS = STEPS | {
    "none": [],
    "whole numbers on the way": [
        {"id": "scale_linear", "kwargs": {"gain": 0.1, "offset": -100.0}},
        {"id": "ensure_dtype", "kwargs": {"dtype": "uint8"}},
        {"id": "clip", "kwargs": {"min": 3.5}},
        {"id": "ensure_dtype", "kwargs": {"dtype": "int16"}},
        {"id": "scale_linear", "kwargs": {"gain": [0.01, 0.02], "axis": "channel"}},
    ],
}


def encoder_of(path: Path, **options: Any) -> PackageEncoder:
    encoder = fb.open_encoder(path, **options)
    assert isinstance(encoder, PackageEncoder)
    return encoder


@pytest.mark.parametrize("name", STEPS)
def test_steps_are_in_the_graph(tmp_path: Path, name: str) -> None:
    path = foreign_package(tmp_path / "a.zip", network(2), channels=2, size=64, steps=STEPS[name])
    encoder = encoder_of(path, images=[PICTURE])
    raw = PICTURE[:, :, :64].astype(np.float32)
    deviation = export_encoder_onnx(encoder, tmp_path / "a.onnx", image=raw)
    assert deviation.max_abs <= 1e-6  # measured: 3e-7


@pytest.mark.parametrize("opset", [11, 13, 17, 18])
def test_other_opsets_become_ours(tmp_path: Path, opset: int) -> None:
    net = Maps(
        [nn.Conv2d(1, 4, 3, 1, 1), nn.Softmax(dim=1), nn.AvgPool2d(2)], [nn.Upsample(scale_factor=2), nn.Hardtanh()]
    )
    path = foreign_package(tmp_path / "a.zip", net, graph=onnx_of(net, opset=opset))
    deviation = export_encoder_onnx(encoder_of(path, tile=64), tmp_path / "a.onnx")
    assert deviation.max_abs <= 1e-6
    model = onnx.load(tmp_path / "a.onnx")
    assert (model.ir_version, [(o.domain, o.version) for o in model.opset_import]) == (8, [("", 17)])


def test_weights_that_older_exporters_list_as_inputs(tmp_path: Path) -> None:
    net, given = Maps([nn.Conv2d(1, 3, 3, 1, 1)]), torch.zeros(1, 1, 64, 64)
    names = {"input_names": ["raw"], "output_names": ["map0"], "keep_initializers_as_inputs": True}
    graph = exported(net, given, opset=11, **names)
    assert len(onnx.load_model_from_string(graph).graph.input) == 3
    encoder = encoder_of(foreign_package(tmp_path / "a.zip", net, size=64, graph=graph))
    assert export_encoder_onnx(encoder, tmp_path / "a.onnx").max_abs <= 1e-6


class Turned(nn.Module):
    """From (y, x) to (x, f, y): a picture without batch and channel."""

    def __init__(self) -> None:
        super().__init__()
        self.maps = Maps([nn.Conv2d(1, 4, 3, 1, 1), nn.Conv2d(4, 3, 2, 2)])

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return one map of one picture."""
        return (self.maps(x[None, None])[0][0].permute(2, 0, 1),)


def test_axes_are_turned_in_the_graph(tmp_path: Path) -> None:
    turned = Turned()
    plain = foreign_package(tmp_path / "plain.zip", turned.maps, size=64)
    with zipfile.ZipFile(plain) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    rdf = yaml.safe_load(files["rdf.yaml"])
    for tensor, order in ((rdf["inputs"][0], "yx"), (rdf["outputs"][0], "xcy")):
        tensor["axes"] = [tensor["axes"]["bcyx".index(letter)] for letter in order]
        tensor.pop("test_tensor")
    rdf["weights"]["onnx"].pop("sha256")
    files |= {"weights.onnx": exported(turned, torch.zeros(64, 64)), "rdf.yaml": to_yaml(rdf)}
    encoder = encoder_of(write_zip(tmp_path / "turned.zip", files))
    found = export_encoder_onnx(encoder, tmp_path / "a.onnx")
    assert found.max_abs <= 1e-6


SCALED = [{"id": "scale_range", "kwargs": {"min_percentile": 1.0, "max_percentile": 99.0}}]
"""Raw intensities would drive tanh to 1, where float rounding decides between trees."""


def painted() -> np.ndarray:
    labels = np.zeros(CELL.shape, np.uint8)
    labels[5:15, 5:190], labels[100:110, 50:150] = 1, 2
    return labels


def test_package_of_a_forest_over_a_package(tmp_path: Path) -> None:
    """It reproduces its test in ours and in bioimageio.core, and is the store's prediction inside the picture."""
    path = foreign_package(tmp_path / "net.zip", network(), steps=SCALED, change=named)
    encoder = encoder_of(path, images=[CELL], tile=96)
    forest = fb.train([(CELL, painted())], encoder=encoder, n_trees=10, engine="sklearn")
    report = fb.write_package(tmp_path / "fused.zip", forest, image=CELL, encoder=encoder, formats=["onnx"])
    assert [(f.engine.split()[0], f.status) for f in report.formats] == [
        ("forestbridge", "passed"),
        ("bioimageio.core", "passed"),
    ]
    assert {v.name for v in report.consumers if v.ok} == {"Python", "deepImageJ", "bioimage.io"}
    found = fb.open_package(tmp_path / "fused.zip").predict(CELL)
    expected = fb.predict(CELL, forest, encoder=encoder)
    np.testing.assert_allclose(found[:, 4:-4, 4:-4], expected[:, 4:-4, 4:-4], atol=1e-6)  # measured: 1.2e-7
    with zipfile.ZipFile(tmp_path / "fused.zip") as archive:
        rdf, readme = yaml.safe_load(archive.read("rdf.yaml")), archive.read("README.md").decode()
        graph = onnx.load(io.BytesIO(archive.read("weights.onnx"))).graph
    own = rdf["config"]["forestbridge"]
    assert own["weights"] == {
        "encoder": "package",
        "sha256": encoder.spec.weights,
        "package": {
            "id": "nuclei-filters",
            "name": "Nuclei by filters",
            "format_version": "0.5.9",
            "sha256": fb.inspect_package(path).sha256,
        },
        "authors": ["Marie Curie", "Lise Meitner"],
        "licence": "BSD-3-Clause",
        "citation": [{"text": "Curie, 1911", "doi": "10.5281/zenodo.1234"}],
    }
    assert rdf["license"] == "BSD-3-Clause" and rdf["cite"][-1] == own["weights"]["citation"][0]
    credit = "Features of the model Nuclei by filters by Marie Curie, Lise Meitner, BSD-3-Clause."
    assert rdf["description"].endswith(f"Made with forestbridge. {credit}")
    for text in ("*Nuclei by filters* (`nuclei-filters`) by Marie Curie", "https://doi.org/10.5281/zenodo.1234"):
        assert text in readme
    for row in ("onnx", "store"):
        assert own["deviations"][row]["label_flips"] == 0 and own["deviations"][row]["max_abs"] <= 1e-6
    assert not any(node.doc_string for node in graph.node)
    other = fb.write_package(
        tmp_path / "other.zip", forest, about=fb.About(license="MIT"), encoder=encoder, formats=["onnx"]
    )
    assert other.good and fb.inspect_package(tmp_path / "other.zip").license == "MIT"


def named(rdf: dict[str, Any]) -> None:
    rdf |= {"authors": [{"name": "Marie Curie"}, {"name": "Lise Meitner"}], "license": "BSD-3-Clause"}
    rdf["cite"] = [{"text": "Curie, 1911", "doi": "10.5281/zenodo.1234"}]


def test_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_line(tmp_path)
    foreign_package(tmp_path / "net.zip", network(), steps=SCALED, change=named)
    done("extract", "a.tif", "-o", "n.features.ome.zarr", "--encoder", "net.zip", "--tile", "64")
    done("train", "n.features.ome.zarr", "--labels", "a_labels.tif", "--n-trees", "5", "-o", "n.forest")
    order = ("fused", "n.forest", "--image", "a.tif", "-o", "n.zip", "--weights", "net.zip")
    ended = call(*order, program="ff-package")
    assert ended.code == 2 and "expected ONNX alone for a forest over the package net.zip" in ended.err
    ended = call(*order, "--dry-run", program="ff-package")
    assert ended.code == 2 and "give --formats onnx" in ended.err
    ended = call("fused", "n.forest", "-o", "n.zip", "--formats", "onnx", program="ff-package")
    assert ended.code == 2 and "give it with --weights FILE.zip" in " ".join(ended.err.split())
    ended = done(*order, "--formats", "onnx", program="ff-package")
    said = " ".join(ended.err.split())
    assert (
        "the network of Nuclei by filters by Marie Curie, Lise Meitner, licence BSD-3-Clause, travels in the zip"
        in said
    )
    done("check", "n.zip", program="ff-package")
    done("predict", "a.tif", "--package", "n.zip", "-o", "p.npy")
    done("predict", "a.tif", "--forest", "n.forest", "--weights", "net.zip", "-o", "f.npy")
    found, expected = np.load("p.npy")[..., 4:-4, 4:-4], np.load("f.npy")[..., 4:-4, 4:-4]
    np.testing.assert_allclose(found, expected, atol=1e-6)


RECIPE = """
[image]
source = "a.tif"
[scribbles]
source = "a_labels.tif"
names = ["background", "cell"]
[encoder]
name = "net.zip"
tile = 64
[training]
n_trees = 3
[package]
name = "cells over a package"
authors = [{ name = "Ada Lovelace" }]
"""


def test_recipe(tmp_path: Path) -> None:
    write_line(tmp_path)
    foreign_package(tmp_path / "net.zip", network(), steps=SCALED, change=named)
    (tmp_path / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    for name in "xy":
        (tmp_path / name).mkdir()
        done("build", tmp_path, "-o", tmp_path / name / "n.zip", program="ff-package")
    assert (tmp_path / "x" / "n.zip").read_bytes() == (tmp_path / "y" / "n.zip").read_bytes()
    info = fb.inspect_package(tmp_path / "x" / "n.zip")
    assert [w.format for w in info.weights] == ["onnx"] and info.license == "BSD-3-Clause"
    (tmp_path / "recipe.toml").write_text(RECIPE.replace("tile = 64", "preprocessing = 'network'"), encoding="utf-8")
    with pytest.raises(
        PackageError, match=r"expected the keys name, range, tile in \[encoder\] of .*, found also prepro"
    ):
        build_recipe(tmp_path, tmp_path / "z.zip")


def test_an_encoder_package_of_ours_gives_its_graph(tmp_path: Path) -> None:
    """Without torch: the graph that was exported, and the hash, licence and citation that the spec stands for."""
    encoder = small_network()
    fb.write_encoder_package(tmp_path / "small.zip", encoder, formats=["onnx"])
    forest = forest_over(encoder, CELL[:96, :96].astype(np.float32)[None])
    own = exportable_encoder(encoder.spec, weights=tmp_path / "small.zip")
    report = fb.write_package(tmp_path / "a.zip", forest, image=CELL, encoder=own, formats=["onnx"])
    assert report.good
    fb.write_package(tmp_path / "b.zip", forest, image=CELL, encoder=encoder, formats=["onnx"])
    a, b = (fb.open_package(tmp_path / f"{n}.zip").predict(CELL) for n in "ab")
    np.testing.assert_allclose(a, b, atol=1e-6)
    assert fb.inspect_package(tmp_path / "a.zip").metadata["weights"] == {"encoder": "small", "sha256": "0" * 64}


def test_refusals(tmp_path: Path) -> None:
    a, b = (foreign_package(tmp_path / f"{n}.zip", Maps([nn.Conv2d(1, n, 3, 1, 1)])) for n in (3, 4))
    encoder = encoder_of(a, tile=64)
    forest = forest_over(encoder, CELL[:64, :64].astype(np.float32)[None])
    with pytest.raises(
        ValueError, match=r"expected ONNX alone for a forest over the package .*3.zip, .* found onnx and t"
    ):
        fb.write_package(tmp_path / "f.zip", forest, encoder=encoder)
    with pytest.raises(SpecMismatchError, match="open the forest's encoder"):
        fb.write_package(tmp_path / "f.zip", forest, encoder=encoder_of(b, tile=64), formats=["onnx"])
    with pytest.raises(SpecMismatchError, match="give that package"):
        exportable_encoder(encoder.spec, weights=b)
    assert not (tmp_path / "f.zip").exists()


def _ml_graph() -> bytes:
    nodes = [helper.make_node("Binarizer", ["raw"], ["map0"], domain="ai.onnx.ml", threshold=0.5)]
    shape = [1, 1, 64, 64]
    values = [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name in ("raw", "map0")]
    model = helper.make_model(
        helper.make_graph(nodes, "ml", values[:1], values[1:]),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)],
        ir_version=8,
    )
    return model.SerializeToString()


NOT_EMBEDDED = {
    "other operators": (_ml_graph, r"expected operators of ONNX alone .* found ai.onnx.ml; predict with the .forest"),
    "opset without a way back": (
        lambda: onnx_of(Maps([nn.Conv2d(1, 1, 3, 1, 1), nn.GELU()]), opset=20, size=64),
        r"can be brought to ONNX opset 17, which other programs run, found opset 20 and: .*; export the model with opset 17",
    ),
}


@pytest.mark.parametrize("name", NOT_EMBEDDED)
def test_graphs_that_cannot_travel(tmp_path: Path, name: str) -> None:
    make, message = NOT_EMBEDDED[name]
    path = foreign_package(tmp_path / "a.zip", Maps([nn.Conv2d(1, 1, 3, 1, 1)]), size=64, graph=make())
    encoder = encoder_of(path)
    with pytest.raises(PackageError, match=rf"a.zip: weights.onnx: .*{message}"):
        export_encoder_onnx(encoder, tmp_path / "a.onnx")


def test_functions_are_written_out(tmp_path: Path) -> None:
    """As the newer exporter of torch writes them."""
    double = helper.make_function(
        "own", "Double", ["x"], ["y"], [helper.make_node("Add", ["x", "x"], ["y"])], [helper.make_opsetid("", 17)]
    )
    nodes = [helper.make_node("Double", ["raw"], ["map0"], domain="own")]
    values = [helper.make_tensor_value_info(n, onnx.TensorProto.FLOAT, [1, 1, 64, 64]) for n in ("raw", "map0")]
    model = helper.make_model(
        helper.make_graph(nodes, "own", values[:1], values[1:]),
        functions=[double],
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("own", 1)],
        ir_version=8,
    )
    net = Maps([nn.Conv2d(1, 1, 1)])
    path = foreign_package(tmp_path / "a.zip", net, size=64, graph=model.SerializeToString())
    found = export_encoder_onnx(encoder_of(path), tmp_path / "a.onnx")
    assert found.max_abs == 0
