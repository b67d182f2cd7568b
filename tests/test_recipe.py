"""Recipes of model_packages: a folder in, a package out, the same bytes in every process; or a message that says what is wrong in it."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import tifffile
import yaml
from PIL import Image as Pillow

from forestbridge.errors import OutputExistsError, PackageError
from forestbridge.package import build_recipe
from forestbridge.package.recipe import sample_image
from small_line import CELLS

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

TISSUE = Path(__file__).resolve().parents[1] / "model_packages" / "tissue_filters"

RECIPE = """
[image]
source = "cells.tif"
axes = "YX"

[scribbles]
source = "cells.png"
names = ["background", "cytoplasm", "nucleus"]

[encoder]
name = "filters"
selection = { GaussianSmoothing = [0.7, 1.6], HessianOfGaussianEigenvalues = [1.0] }

[training]
n_trees = 10
seed = 3

[package]
name = "phantom-cells"
license = "CC0-1.0"
authors = [{ name = "Ada Lovelace" }]
tags = ["phantom"]
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a small recipe."""
    folder = tmp_path / "phantom_cells"
    folder.mkdir()
    (folder / "recipe.toml").write_text(RECIPE, encoding="utf-8")
    (folder / "README.md").write_text("# Phantom\n\nCells that never lived.\n", encoding="utf-8")
    tifffile.imwrite(folder / "cells.tif", CELLS.image)
    Pillow.fromarray(CELLS.scribbles).save(folder / "cells.png")
    Pillow.fromarray(np.zeros((20, 40), np.uint8)).save(folder / "cover.png")
    return folder


def test_recipe_becomes_a_package(folder: Path, tmp_path: Path) -> None:
    report = build_recipe(folder, tmp_path / "cells.zip")
    assert report.good and report.path == tmp_path / "cells.zip"
    with zipfile.ZipFile(report.path) as archive:
        rdf = yaml.safe_load(archive.read("rdf.yaml"))
        assert archive.read("README.md").startswith(b"# Phantom\n\nCells that never lived.\n\n## Classes")
        assert archive.read("cover.png") == (folder / "cover.png").read_bytes()
    assert (rdf["name"], rdf["id"], rdf["license"]) == ("phantom-cells", "phantom-cells", "CC0-1.0")
    own = rdf["config"]["forestbridge"]
    assert (own["trees"], own["training"]["seed"]) == (10, 3)
    assert own["spec"]["options"]["selection"]["GaussianSmoothing"] == [0.7, 1.6]
    with pytest.raises(OutputExistsError, match=r"cells\.zip exists"):
        build_recipe(folder, tmp_path / "cells.zip")


def test_the_tissue_package_has_the_same_bytes_in_two_processes(tmp_path: Path) -> None:
    code = "import sys; from forestbridge.package import build_recipe; build_recipe(sys.argv[1], sys.argv[2])"
    other = tmp_path / "other" / "tissue_filters.zip"
    other.parent.mkdir()
    environment = {**os.environ, "PYTHONHASHSEED": "4711"}
    with subprocess.Popen([sys.executable, "-c", code, TISSUE, other], env=environment) as process:
        report = build_recipe(TISSUE, tmp_path / "tissue_filters.zip")
    assert process.returncode == 0 and report.good
    assert (tmp_path / "tissue_filters.zip").read_bytes() == other.read_bytes()
    assert all(verdict.ok for verdict in report.consumers)
    # 100 trees: a feature that falls on the other side of a threshold moves a probability by 0.01; measured: 6 values of 129792
    assert max(f.max_abs or 0 for f in report.formats) <= 0.0101
    assert max(f.mismatched for f in report.formats) <= 12


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "[training]",
            "[learning]",
            r"expected the tables encoder, image, package, scribbles, training in .*found .*learning",
        ),
        (
            "seed = 3",
            "sed = 3",
            r"expected the keys max_depth, n_trees, preset, seed in \[training\].*found also sed; leave it out",
        ),
        ('source = "cells.tif"', "", r"expected source = a text in \[image\] of .*recipe\.toml, found None; add it"),
        ('name = "filters"', "name = 7", r"expected name = a text in \[encoder\] of .*found 7; add it"),
        ('license = "CC0-1.0"', "licence = 'x'", "expected the package keys .*found licence; leave it out"),
        (
            'source = "cells.tif"',
            'source = "skimage:unicorn"',
            "expected the name of an image of skimage.data, found 'unicorn'",
        ),
        ("[image]", "[image", r"expected TOML in .*recipe\.toml, found an error: .*; correct it"),
    ],
)
def test_recipe_that_is_refused(folder: Path, tmp_path: Path, old: str, new: str, message: str) -> None:
    (folder / "recipe.toml").write_text(RECIPE.replace(old, new, 1), encoding="utf-8")
    if "skimage" in new:
        (folder / "recipe.toml").write_text(RECIPE.replace(old, new, 1).replace('axes = "YX"', ""), encoding="utf-8")
    with pytest.raises(PackageError, match=message):
        build_recipe(folder, tmp_path / "a.zip")
    assert not (tmp_path / "a.zip").exists()


def test_folder_without_a_recipe(tmp_path: Path) -> None:
    with pytest.raises(
        PackageError, match=r"expected a folder with a recipe\.toml, found none at .*; give a folder of model_packages"
    ):
        build_recipe(tmp_path, tmp_path / "a.zip")
    (tmp_path / "recipe.toml").write_text("image = 1\nscribbles = 2\nencoder = 3\ntraining = 4\npackage = 5\n")
    with pytest.raises(PackageError, match=r"expected \[image\] to be a table in .*found 1"):
        build_recipe(tmp_path, tmp_path / "a.zip")


def test_sample_image() -> None:
    image = sample_image("immunohistochemistry")
    assert image.n_channels == 3 and image.source == "skimage.data.immunohistochemistry"
