"""ilastik projects to packages: the project's own trees, in every format, give the project's answer."""

from pathlib import Path

import numpy as np
import pytest

import forestbridge as fb
from command_line import call
from forestbridge.package.check import check_package
from ilp_files import random_tree, write_ilp
from small_line import CELLS, STACK

IMAGE = (CELLS.image // 20).astype(np.uint8)
VOLUME = (STACK.image[0] // 20).astype(np.uint8)  # (18, 70, 74)
COLOUR = np.random.default_rng(0).integers(0, 255, (90, 100, 3)).astype(np.uint8)
SMOOTH = {"GaussianSmoothing": [0.7, 1.0], "HessianOfGaussianEigenvalues": [1.0]}


def trees(columns: int, depth: int = 4):
    rng = np.random.default_rng(3)
    return [random_tree(rng, depth, columns, 2) for _ in range(6)]


def project(path: Path, kind: str, **options) -> Path:
    """Write a project of a kind; random trees over real features."""
    match kind:
        case "plane":
            return write_ilp(path, IMAGE[..., None], forests=[trees(4)], selection=SMOOTH, **options)
        case "colour":
            return write_ilp(path, COLOUR, forests=[trees(12)], columns=12, selection=SMOOTH, **options)
        case "volume":
            settings = {"axes": "zyxc", "columns": 5, "in_2d": (False,) * 3, "selection": SMOOTH}
            return write_ilp(path, VOLUME[..., None], forests=[trees(5)], **settings, **options)
    settings = {"axes": "zyxc", "columns": 5, "in_2d": (True, False, True), "selection": SMOOTH}
    return write_ilp(path, VOLUME[..., None], forests=[trees(5)], **settings, **options)


@pytest.mark.parametrize("kind", ["plane", "colour", "volume", "mixed"])
@pytest.mark.usefixtures("without_schema")
def test_packages_answer_as_the_project(tmp_path, kind):
    path = project(tmp_path / "a.ilp", kind, names=("Hintergrund", "Zell-Kern"))
    ended = call("convert", path, "-o", tmp_path / "a.zip", "--author", "Ada Lovelace", program="ff-package")
    assert ended.code == 0, ended.err
    assert "runs in: Python ✓ · ilastik ✓ · deepImageJ ✓" in ended.out
    assert "a crop of" in ended.err and "cells travels in the zip as test image" in ended.err
    opened = fb.read_project(path)
    image = opened.first_image()
    assert image is not None
    package = fb.open_package(tmp_path / "a.zip")
    assert package.classes.names == ("Hintergrund", "Zell-Kern")
    found, expected = package.predict(image), fb.predict(image, opened.pixel_forest())
    different = np.abs(found - expected) >= 0.015
    assert different.mean() <= 1e-3, "a feature at a threshold falls beyond it by float32 rounding, rarely"
    assert package.info.inputs[0].axes[0].id == "batch"
    ids = "".join(a.id[0] for a in package.info.inputs[0].axes)
    assert ids == ("bczyx" if kind in ("volume", "mixed") else "bcyx")
    assert {w.format for w in package.info.weights} == {"onnx", "torchscript"}
    assert str(tmp_path).encode() not in (tmp_path / "a.zip").read_bytes()


def test_the_whole_check_of_a_converted_project(tmp_path):
    path = project(tmp_path / "a.ilp", "plane")
    assert call("convert", path, "-o", tmp_path / "a.zip", program="ff-package").code == 0
    info = fb.inspect_package(tmp_path / "a.zip")
    report = check_package(tmp_path / "a.zip", trust=f"sha256:{info.sha256}")
    assert report.good and {f.weights for f in report.formats} == {"onnx", "torchscript"}
    assert all(v.ok for v in report.consumers)


@pytest.mark.usefixtures("without_schema")
def test_deep_trees_are_told_with_the_two_ways_out(tmp_path):
    labels = np.where(CELLS.scribbles > 1, 2, CELLS.scribbles).astype(np.uint8)[..., None]
    path = write_ilp(
        *(tmp_path / "deep.ilp", IMAGE[..., None]),
        forests=[trees(4, depth=14)],
        selection=SMOOTH,
        blocks=[((0, 0, 0), labels)],
    )
    words = ["convert", path, "-o", tmp_path / "a.zip"]
    ended = call(*words, program="ff-package")
    assert ended.code == 3 and not (tmp_path / "a.zip").exists()
    assert "expected trees of depth ≤ 10 for TorchScript, which ilastik and QuPath need, found depth 14" in ended.err
    assert f"ff-package convert {path} -o {tmp_path / 'a.zip'} --retrain --max-depth 10" in ended.err
    assert f"{tmp_path / 'a.zip'} --formats onnx" in ended.err
    ended = call(*words, "--formats", "onnx", program="ff-package")
    assert ended.code == 0 and "ilastik ✗" in ended.out and "QuPath ✗" in ended.out
    ended = call(*words, "--retrain", "--max-depth", "10", "--overwrite", program="ff-package")
    assert ended.code == 0, ended.err
    assert "ilastik ✓" in ended.out
    retrained = fb.train(fb.read_project(path).training_pairs(), encoder=fb.read_project(path).encoder)
    image = fb.read_project(path).first_image()
    assert image is not None
    different = np.abs(fb.open_package(tmp_path / "a.zip").predict(image) - fb.predict(image, retrained)) >= 0.015
    assert different.mean() <= 1e-3


def test_the_forest_alone(tmp_path):
    path = project(tmp_path / "a.ilp", "plane")
    words = ["convert", path, "-o", tmp_path / "a.forest"]
    plan = call(*words, "--dry-run", program="ff-package")
    assert plan.code == 0 and "would write" in plan.out and "6 trees of depth 4" in plan.out
    ended = call(*words, "--json", program="ff-package")
    assert ended.code == 0 and ended.json()["trees"] == 6
    loaded = fb.load_forest(tmp_path / "a.forest")
    expected = fb.predict(IMAGE, fb.read_project(path).pixel_forest())
    np.testing.assert_array_equal(fb.predict(IMAGE, loaded), expected)
    assert call(*words, program="ff-package").code == 2
    np.save(tmp_path / "a.npy", IMAGE)
    for forest in (path, tmp_path / "a.forest"):
        ended = call("predict", tmp_path / "a.npy", "--forest", forest, "-o", tmp_path / "p.npy", "--overwrite")
        assert ended.code == 0, ended.err
        np.testing.assert_array_equal(np.load(tmp_path / "p.npy"), expected)


def test_words_that_need_retraining(tmp_path):
    path = project(tmp_path / "a.ilp", "plane")
    ended = call("convert", path, "-o", tmp_path / "a.zip", "--max-depth", "5", "--seed", "1", program="ff-package")
    assert ended.code == 2 and "expected --max-depth, --seed with --retrain, found it alone" in ended.err
    ended = call("convert", path, "-o", tmp_path / "a.tif", program="ff-package")
    assert ended.code == 2 and "expected a package named NAME.zip" in ended.err


def test_training_on_projects(tmp_path):
    labels = np.where(CELLS.scribbles > 1, 2, CELLS.scribbles).astype(np.uint8)[..., None]
    options = {"selection": SMOOTH, "blocks": [((0, 0, 0), labels)]}
    a, b = (write_ilp(tmp_path / name, IMAGE[..., None], **options) for name in ("a.ilp", "b.ilp"))
    ended = call("train", a, b, "-o", tmp_path / "ab.forest", "--n-trees", "5", "--json")
    assert ended.code == 0, ended.err
    assert ended.json()["training"]["pixels"]["1"] == 2 * int((labels == 1).sum())
    assert [c["name"] for c in ended.json()["classes"]] == ["background", "cell"]
    np.save(tmp_path / "x.npy", IMAGE)
    for words, message in (
        ([a, tmp_path / "x.npy"], "expected ilastik projects only, or none, found also"),
        ([a, "--labels", tmp_path / "x.npy", "--slice", "3", "--3d"], "found also --labels, --3d, --slice; leave"),
        ([a, "--channels", "0"], "found also --channels"),
        ([tmp_path / "x.npy"], "expected the labels of each source, found none; give them with --labels"),
    ):
        ended = call("train", *words, "-o", tmp_path / "c.forest")
        assert ended.code == 2 and message in ended.err, ended.err
    other = write_ilp(
        tmp_path / "o.ilp", IMAGE[..., None], blocks=[((0, 0, 0), labels)], selection={"GaussianSmoothing": [0.7]}
    )
    ended = call("train", a, other, "-o", tmp_path / "c.forest")
    assert ended.code == 4 and "select the same features in all projects" in ended.err


def test_stores_like_a_project(tmp_path):
    path = project(tmp_path / "a.ilp", "plane")
    np.save(tmp_path / "a.npy", IMAGE)
    store = tmp_path / "a.features.ome.zarr"
    assert call("extract", tmp_path / "a.npy", "-o", store, "--like", path).code == 0
    assert fb.open_store(store).spec == fb.read_project(path).encoder.spec
