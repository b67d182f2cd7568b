"""Packages of deep encoders: one fixed tile, the grid of the feature store, the weights' licence; every engine agrees."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

from deep_networks import small_network
from deep_packages import Written
from forestbridge.errors import PackageError, SpecMismatchError
from forestbridge.package import write_package
from forestbridge.predict import predict
from forestbridge.runner import open_package
from test_deep_graphs import forest_over

CELL = data.cell()
"""(660, 550) bytes."""


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Written:
    path = tmp_path_factory.mktemp("small") / "small.zip"
    encoder = small_network()
    forest = forest_over(encoder, CELL[100:196, 100:196].astype(np.float32)[None])
    report = write_package(path, forest, image=CELL[50:250, 60:260], encoder=encoder)
    return Written(path, report, encoder, forest)


def test_every_engine_agrees(small: Written) -> None:
    found = [(f.weights, f.engine.split()[0], f.status) for f in small.report.formats]
    assert found == [
        ("onnx", "forestbridge", "passed"),
        ("onnx", "bioimageio.core", "passed"),
        ("torchscript", "bioimageio.core", "passed"),
    ]
    assert {v.name for v in small.report.consumers if v.ok} >= {"Python", "ilastik", "deepImageJ", "QuPath"}


def test_description(small: Written) -> None:
    rdf = small.rdf
    [source], [target] = rdf["inputs"], rdf["outputs"]
    assert [a.get("size") for a in source["axes"][2:]] == [96, 96]
    assert [a["halo"] for a in target["axes"][2:]] == [16, 16]
    own = rdf["config"]["forestbridge"]
    assert own["weights"] == {"encoder": "small", "sha256": "0" * 64}
    assert set(own["deviations"]) == {"onnx", "torchscript", "store", "store_edge"}
    assert own["deviations"]["store"]["label_flips"] <= 1e-4 * own["deviations"]["store"]["pixels"]
    readme = small.member("README.md").decode()
    assert "y exactly 96 pixels" in readme and "| tile by tile, against the feature store |" in readme
    assert np.load(io.BytesIO(small.member("probabilities_test.npy"))).shape == (1, 3, 96, 96)


@pytest.mark.parametrize("shape", [(64, 64), (1, 1), (20, 33), (65, 130), (128, 127), (200, 301)])
def test_same_grid_as_the_store(small: Written, shape: tuple[int, int]) -> None:
    """Inside the image; within a stride of its edge a store has no cells beyond, and a tile has those of the reflection."""
    picture = CELL[100 : 100 + shape[0], 100 : 100 + shape[1]]
    found = open_package(small.path).predict(picture)
    expected = predict(picture, small.forest, encoder=small.encoder)
    assert found.shape == expected.shape
    other = (found.argmax(axis=0) != expected.argmax(axis=0))[8:-8, 8:-8]
    print(f"{shape}: {other.sum()} of {other.size} labels differ inside")
    assert other.sum() <= 1e-4 * other.size


def test_stacks_go_plane_by_plane(small: Written) -> None:
    stack = np.stack([CELL[:70, :80], CELL[100:170, :80]])[None]
    found = open_package(small.path).predict(stack)
    assert np.array_equal(found[:, 1], open_package(small.path).predict(stack[0, 1]))


def test_weights_of_cyto3(cyto3_package: Written) -> None:
    """Hash, licence and citation of the real network travel with it."""
    own = cyto3_package.rdf["config"]["forestbridge"]["weights"]
    assert own["sha256"] == cyto3_package.encoder.spec.weights and "BSD-3-Clause" in own["licence"]
    assert any(entry.get("doi") == "10.1038/s41592-025-02595-5" for entry in cyto3_package.rdf["cite"])


def test_refusals(small: Written, tmp_path: Path) -> None:
    with pytest.raises(SpecMismatchError, match="open the forest's encoder"):
        write_package(tmp_path / "a.zip", small.forest, encoder=small_network(channels=2))
    with pytest.raises(ValueError, match="give its encoder"):
        write_package(tmp_path / "a.zip", small.forest)
    with pytest.raises(SpecMismatchError, match="give the forest's encoder, or leave it out"):
        predict(CELL, small.forest, encoder=small_network(channels=2))
    assert not list(tmp_path.iterdir())


def test_another_tile_than_the_encoders_is_refused(small: Written, tmp_path: Path) -> None:
    with zipfile.ZipFile(small.path) as old, zipfile.ZipFile(tmp_path / "b.zip", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, content.replace(b"halo: 16", b"halo: 14") if name == "rdf.yaml" else content)
    with pytest.raises(PackageError, match=r"tiles and halos .* where its encoder has \[\(96, 16\), \(96, 16\)\]"):
        open_package(tmp_path / "b.zip")
