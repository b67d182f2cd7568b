"""docs/ilastik.md: its lines run as they stand, in their order, in a folder with the project and images that they name."""

import re
import shlex
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image as Pillow
from skimage import data

import forestbridge as fb
from command_line import call
from forestbridge.phantom import phantom

TEXT = (Path(__file__).parent.parent / "docs" / "ilastik.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
EXAMPLES = {
    name: [line for block in re.findall(r"```bash\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    for name, text in SECTIONS.items()
}
COINS = data.coins()[:150, :180]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two images with labels, and a project with a forest over a real one."""
    monkeypatch.chdir(tmp_path)
    sample = phantom((96, 112), classes=2)
    tifffile.imwrite("a.tif", sample.image)
    tifffile.imwrite("a_labels.tif", sample.scribbles)
    Pillow.fromarray(COINS).save("b.png")
    labels = np.zeros(COINS.shape, np.uint8)
    labels[60:66, 5:150], labels[25:40, 15:35], labels[90:100, 60:75] = 1, 2, 2
    image = fb.read_image("b.png")
    encoder = fb.open_encoder(
        "filters", selection={"GaussianSmoothing": [0.7, 1.6, 3.5], "HessianOfGaussianEigenvalues": [1.6]}
    )
    forest = fb.train([(image, labels)], encoder=encoder, n_trees=15, names=["background", "coin"], engine="sklearn")
    fb.write_project("nuclei.ilp", forest, [(image, fb.as_scribbles(labels, names=["background", "coin"]))])
    return tmp_path


def run(section: str, *, leave_out: str = " and nothing") -> None:
    for line in EXAMPLES[section]:
        if not line.startswith(leave_out):
            program, *arguments = shlex.split(line)
            ended = call(*arguments, program=program)
            assert ended.code == 0, f"{line}\n{ended.err}"
            assert ended.out


@pytest.mark.usefixtures("without_schema")
def test_project_to_package(folder: Path) -> None:
    run("From a project to a package")
    project = fb.read_project("nuclei.ilp")
    expected = fb.predict(COINS, project.pixel_forest())
    found = tifffile.imread("b_probabilities.tif")
    assert (np.abs(found - expected) >= 0.015).mean() <= 1e-3
    labels = np.asarray(Pillow.open("b_segmentation.png"))
    np.testing.assert_array_equal(labels, expected.argmax(axis=0) + 1)
    assert 0.1 < (labels == 2).mean() < 0.7
    assert {w.format for w in fb.inspect_package("nuclei_onnx.zip").weights} == {"onnx"}
    assert fb.load_forest("nuclei.forest").depth() <= 10


def test_in_place_of_headless(folder: Path) -> None:
    run("In place of ilastik --headless")
    expected = fb.predict(COINS, fb.read_project("nuclei.ilp").pixel_forest())
    with h5py.File("b_Simple Segmentation.h5") as file:
        np.testing.assert_array_equal(file["exported_data"][..., 0], expected.argmax(axis=0) + 1)
    np.testing.assert_array_equal(tifffile.imread("results/b_p.tiff"), expected)
    with h5py.File("b_Probabilities.h5") as file:
        part = np.rint(expected[:, :60, :80] * np.float32(255)).astype(np.uint8)
        np.testing.assert_array_equal(file["exported_data"], np.moveaxis(part, 0, -1))


@pytest.mark.usefixtures("without_schema")
def test_forest_to_project_package_in_ilastik_and_features(folder: Path) -> None:
    run("From a forest to a project")
    project, forest = fb.read_project("nuclei2.ilp"), fb.load_forest("nuclei2.forest")
    image = fb.read_image("a.tif")
    np.testing.assert_array_equal(fb.predict(image, project.pixel_forest()), fb.predict(image, forest))
    assert project.training_pairs()[0][1].names == {1: "background", 2: "nucleus"}
    run("A package in ilastik", leave_out="ff-package check")
    info = fb.inspect_package("nuclei2.zip")
    ended = call("check", "nuclei2.zip", "--trust", f"sha256:{info.sha256}", program="ff-package")
    assert ended.code == 0 and "ilastik ✓" in ended.out
    run("Features as channels")
    features = fb.read_image("a_features.h5")
    assert features.n_channels == 6
    np.testing.assert_array_equal(features.plane()[0], image.plane()[0])
    found = fb.read_image("a_features.ome.zarr").plane()
    np.testing.assert_array_equal(found, fb.features(image, fb.open_encoder("filters"))[[0, 12, 30]])
    for name in ("a_probabilities.h5", "a_probabilities.ome.zarr"):
        np.testing.assert_array_equal(fb.read_image(name).plane(), fb.predict(image, forest))


def test_every_line_is_run() -> None:
    run_here = {
        *("From a project to a package", "In place of ilastik --headless", "From a forest to a project"),
        *("A package in ilastik", "Features as channels"),
    }
    assert {name for name, lines in EXAMPLES.items() if lines} == run_here


def test_links_lead_to_sections() -> None:
    names = {re.sub(r"[^a-z0-9 -]", "", name.lower()).replace(" ", "-") for name in SECTIONS}
    for target in re.findall(r"\]\(#([^)]+)\)", TEXT):
        assert target in names, target
