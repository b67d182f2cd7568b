"""Packages that cannot be encoders, by command: one clear message, the right exit code, and nothing is written."""

import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import tifffile

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

import hostile_zips
from command_line import call, done, tree
from foreign_encoders import Maps, exported, foreign_package, onnx_of
from packages import npy
from test_foreign_encoders import build_vector, network

PICTURE = np.random.default_rng(0).integers(1, 50, (100, 100)).astype(np.uint8)


def hostile(name: str) -> Callable[[Path], Any]:
    return hostile_zips.CASES[name][0]


def changed(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], Any]:
    return lambda path: foreign_package(path, network(), change=change)


def with_graph(change: Callable[[onnx.ModelProto], Any]) -> Callable[[Path], Any]:
    def make(path: Path) -> Path:
        model = onnx.load_model_from_string(onnx_of(network()))
        change(model)
        return foreign_package(path, network(), graph=model.SerializeToString())

    return make


def own_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.evil"
    model.opset_import.append(helper.make_opsetid("com.evil", 1))


def outside(model: onnx.ModelProto) -> None:
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    tensor.ClearField("raw_data")


class Volume(nn.Module):
    """Of stacks."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 2, 3, 1, 1)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return (N, 2, z, y, x)."""
        return (self.layer(x),)


def with_z(path: Path) -> None:
    graph = exported(Volume(), torch.zeros(1, 1, 8, 64, 64))

    def deep(rdf: dict[str, Any]) -> None:
        for side in ("inputs", "outputs"):
            rdf[side][0]["axes"].insert(2, {"type": "space", "id": "z", "size": 8})
            rdf[side][0].pop("test_tensor")

    foreign_package(path, Maps([nn.Conv2d(1, 2, 3, 1, 1)]), size=64, graph=graph, change=deep)


class Logarithm(nn.Module):
    """Is not finite for half of all noise."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return one map."""
        return (torch.log(x),)


def hash_of_another_file(rdf: dict[str, Any]) -> None:
    rdf["weights"]["onnx"]["sha256"] = "0" * 64


def addressed(rdf: dict[str, Any]) -> None:
    rdf["weights"]["onnx"] = {"source": "https://example.org/w.onnx", "opset_version": 17}


CASES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "zip bomb": (hostile("bomb"), r"expected at most 100 times its compressed size, found 16777216 bytes"),
    "path escape": (hostile("slip"), r"it has the part '..'"),
    "cut off": (hostile("truncated"), r"truncated or followed by other bytes"),
    "no file": (lambda path: None, r"expected a package at a.zip, found no such file"),
    "own operators": (with_graph(own_operator), r"weights.onnx: expected ONNX operators .* found com.evil::Conv"),
    "numbers elsewhere": (with_graph(outside), r"expected all numbers inside of the ONNX file, found the tensor"),
    "other hash": (
        changed(hash_of_another_file),
        r"key weights.onnx.source: expected weights.onnx with the sha256 0{64}, found",
    ),
    "no such weights": (
        changed(lambda rdf: rdf["weights"]["onnx"].update(source="gone.onnx")),
        r"key weights.onnx.source: expected a file in the zip, found gone.onnx, which is not in it",
    ),
    "weights at an address": (
        changed(addressed),
        r"expected ONNX weights in the zip, found onnx at https://example.org/w.onnx; export",
    ),
    "no map": (build_vector, r"found outputs 'map0' \(batch, channel\), of which none is a map"),
    "no whole stride": (
        lambda path: foreign_package(path, Maps([nn.Conv2d(1, 4, 3)])),
        r"found 'map0' of \(62, 62\) cells for a tile of \(64, 64\) pixels; export the model with padding",
    ),
    "z": (with_z, r"found an axis z in 'raw'; 3D models are not run as encoders yet"),
    "NaN": (
        lambda path: foreign_package(path, Logarithm()),
        r"a.zip: expected finite values of noise around zero, found NaN or infinity",
    ),
    "constant": (
        lambda path: foreign_package(path, Maps([nn.Conv2d(1, 2, 1), nn.Hardtanh(98, 99)])),
        r"expected maps that change with the pixels, found one that does not",
    ),
    "no numbers": (
        lambda path: foreign_package(path, network(), graph=npy(np.zeros(3))),
        r"weights.onnx: expected an ONNX file, found",
    ),
}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    tifffile.imwrite("a.tif", PICTURE)
    labels = np.zeros(PICTURE.shape, np.uint8)
    labels[5:9], labels[50:60] = 1, 2
    tifffile.imwrite("a_labels.tif", labels)
    return tmp_path


@pytest.mark.parametrize("name", CASES)
def test_encoder_is_refused(here: Path, name: str) -> None:
    make, message = CASES[name]
    make(here / "a.zip")
    before = tree(here)
    refused(5, message, "extract", "a.tif", "-o", "a.features.ome.zarr", "--encoder", "a.zip")
    assert tree(here) == before


def refused(code: int, message: str, *arguments: str) -> None:
    """Run a command that ends with a code and says one line on why."""
    ended = call(*arguments)
    assert ended.code == code, ended.err
    assert "Traceback" not in ended.err and not ended.out
    [line] = [text for text in ended.err.splitlines() if text.startswith("forestbridge: ")]
    assert re.search(message, line), line


class Reciprocal(nn.Module):
    """Finite on noise, and not where the picture is 0."""

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return one map."""
        return (1 / x,)


def test_values_that_are_not_finite(here: Path) -> None:
    foreign_package(here / "a.zip", Reciprocal())
    labels = ("--labels", "a_labels.tif", "--n-trees", "2")
    done("train", "a.tif", *labels, "--encoder", "a.zip", "-o", "a.forest")
    black = PICTURE.copy()
    black[20, 30] = 0
    tifffile.imwrite("black.tif", black)
    message = (
        r"a.zip: expected finite features, found 25 values of the map map0 that are NaN or infinite; check the image"
    )
    refused(5, message, "extract", "black.tif", "-o", "b.features.ome.zarr", "--encoder", "a.zip")
    refused(5, message, "train", "black.tif", *labels, "--encoder", "a.zip", "-o", "b.forest")
    refused(5, message, "predict", "black.tif", "--forest", "a.forest", "--weights", "a.zip", "-o", "b.npy")
    assert not [p for p in here.iterdir() if p.name in ("b.forest", "b.npy")]


def test_onnxruntime_is_missing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    foreign_package(here / "a.zip", network())
    done("train", "a.tif", "--labels", "a_labels.tif", "--n-trees", "2", "--encoder", "a.zip", "-o", "a.forest")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    message = r"running a package needs the extra 'cpu', .* pip install 'forestbridge\[cpu\]'"
    refused(6, message, "extract", "a.tif", "-o", "a.features.ome.zarr", "--encoder", "a.zip")
    refused(6, message, "predict", "a.tif", "--forest", "a.forest", "--weights", "a.zip", "-o", "a.npy")
