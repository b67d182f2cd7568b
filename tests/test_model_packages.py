"""The folders of model_packages: each names an encoder, its licence and citation as they are; two are built with a real network."""

import json
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import forestbridge as fb
from command_line import call, done
from deep_weights import cyto3_file
from forestbridge.encoders.networks import DEEP_NAMES, network_of, plan_spec, split_name
from forestbridge.errors import PackageError, ResourceError
from forestbridge.package import build_recipe
from forestbridge.package.about import about_from_table
from forestbridge.package.deep import require_small_network, weights_citation, weights_facts
from forestbridge.package.recipe import data_file, load_recipe
from forestbridge.weights import checkpoint_of

ROOT = Path(__file__).resolve().parents[1] / "model_packages"
FOLDERS = sorted(path.parent for path in ROOT.glob("*/recipe.toml"))
NAMES = [folder.name for folder in FOLDERS]
DEEP = [name for name in NAMES if name != "tissue_filters"]
ALONE = [name for name in NAMES if name in DEEP_NAMES]

SMALL = 136
"""Pixels of the smallest tile of cyto3, whose core has eight."""


def planned(recipe: dict[str, Any]) -> Any:
    """Return the spec of a recipe's network; nothing is downloaded."""
    network, maps = split_name(recipe["encoder"]["name"])
    channels = len(recipe["image"].get("channels", [0]))
    if recipe["image"]["source"] == "skimage:immunohistochemistry" and "channels" not in recipe["image"]:
        channels = 3
    low, high = recipe["encoder"]["range"]
    options = {"weights": "0" * 64, "maps": maps, "tile": recipe["encoder"].get("tile")}
    return plan_spec(network_of(network), channels=channels, low=[low] * channels, high=[high] * channels, **options)


def texts_of(cell: str) -> list[str]:
    return re.findall(r"`(.+?)`", cell)


def python_of(name: str) -> str:
    """Return the Python of a README."""
    text = (ROOT / name / "README.md").read_text(encoding="utf-8")
    return "".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def test_every_network_that_fits_has_a_recipe() -> None:
    without = set(DEEP_NAMES) - set(NAMES)
    assert without == {"sam_vit_h"}
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert "There is none for `sam_vit_h`" in text and "2 GiB" in text
    assert set(re.findall(r"^\| \[(\w+)\]\(\1\)", text, re.MULTILINE)) == set(NAMES)
    with pytest.raises(ResourceError, match=r"less than 2 GiB for a package, found about 2548 MB for sam_vit_h"):
        require_small_network("sam_vit_h")


@pytest.mark.parametrize("name", DEEP)
def test_recipe_says_what_the_weights_are(name: str) -> None:
    folder = ROOT / name
    recipe = load_recipe(folder)
    spec = planned(recipe)
    assert spec.name == name or "training" in recipe
    about = about_from_table(recipe["package"], folder)
    checkpoint = checkpoint_of(spec.name)
    assert about.license == checkpoint.licence.split(";")[0]
    assert weights_citation(spec)[0] in about.cite
    assert about.description and about.readme and about.id and about.id.startswith(name.replace("_", "-"))
    assert about.license in about.readme


@pytest.mark.parametrize("name", ALONE)
def test_readme_says_what_the_network_is(name: str) -> None:
    text = (ROOT / name / "README.md").read_text(encoding="utf-8")
    checkpoint, spec = checkpoint_of(name), planned(load_recipe(ROOT / name))
    [citation] = weights_citation(spec)
    assert f"<{checkpoint.url}>, licence {checkpoint.licence}." in text
    assert f"Cite: {checkpoint.citation.rsplit(', ', 1)[0]}, <" in text
    assert (f"<https://doi.org/{citation['doi']}>" if "doi" in citation else f"<{citation['url']}>") in text
    assert f"downloads the weights once, {checkpoint.megabytes} MB" in text
    rows = re.findall(r"^\| (`.*?) \| ", text, re.MULTILINE)
    assert sorted(m for row in rows for m in texts_of(row)) == sorted(m.name for m in spec.maps)
    assert spec.tile is not None
    side = spec.tile[0] + 2 * spec.halo[0]
    example = python_of("cellpose_cyto3").replace("cellpose_cyto3", name)
    assert python_of(name) == example.replace("512", str(side)).replace("(1, 5", f"({spec.channels}, 5")


def test_weights_of_ones_own_are_not_called_published() -> None:
    """microSAM publishes no sha256: before the published file came there is none to compare with."""
    facts = weights_facts(planned(load_recipe(ROOT / "micro_sam_lm")))
    assert facts["published"] is False and facts["licence"] == "CC-BY-4.0"


def small_folder(tmp_path: Path, name: str) -> Path:
    """Return a copy of a recipe with the smallest tile."""
    folder = tmp_path / name
    shutil.copytree(ROOT / name, folder)
    text = (folder / "recipe.toml").read_text(encoding="utf-8")
    (folder / "recipe.toml").write_text(text.replace("range = ", f"tile = {SMALL}\nrange = "), encoding="utf-8")
    return folder


def test_cyto3_is_built_and_does_what_its_readme_says(tmp_path: Path) -> None:
    folder, path = small_folder(tmp_path, "cellpose_cyto3"), tmp_path / "cellpose_cyto3.zip"
    (tmp_path / "again").mkdir()
    again = tmp_path / "again" / path.name
    program = [sys.executable, "-c", "from forestbridge.cli import main_package; main_package()", "build", folder]
    options = ["--weights", cyto3_file(), "--json"]
    runs = [subprocess.Popen([*program, "-o", out, *options], stdout=subprocess.PIPE) for out in (path, again)]
    documents = [json.loads(run.communicate()[0]) for run in runs]
    assert [run.returncode for run in runs] == [0, 0]
    assert all(d["good"] and {f["status"] for f in d["formats"]} == {"passed"} for d in documents)
    assert path.read_bytes() == again.read_bytes()
    info = fb.inspect_package(path)
    assert (info.kind, info.license, info.name) == ("encoder", "BSD-3-Clause", "cellpose-cyto3-features")
    with zipfile.ZipFile(path) as archive:
        readme = archive.read("README.md").decode()
    assert readme.startswith("# Features of Cellpose's cyto3\n") and "They are not the published ones" in readme

    tifffile.imwrite(tmp_path / "image.tif", data.cell()[:200, :210])
    code = python_of("cellpose_cyto3").replace("512", str(SMALL))
    code += "for name, values in maps.items():\n    print(name, values.shape, abs(values - again[name]).max())\n"
    run = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, encoding="utf-8", check=False)
    assert run.returncode == 0, run.stderr
    found = {line.split()[0]: float(line.split()[-1]) for line in run.stdout.splitlines()}
    assert set(found) == {"s1", "s2", "s4", "s8"}
    assert max(found.values()) <= 0.5  # float16 beside another, of values up to some hundreds
    tifffile.imwrite(tmp_path / "tiny.tif", data.cell()[:16, :8])  # two tiles
    done("extract", tmp_path / "tiny.tif", "-o", tmp_path / "a.features.ome.zarr", "--like", path)
    assert fb.open_store(tmp_path / "a.features.ome.zarr").spec == info.spec


def test_tissue_is_built(tmp_path: Path) -> None:
    """The recipe as it stands: what it was trained on is labelled so, on every route."""
    path = tmp_path / "tissue_cyto3.zip"
    report = build_recipe(ROOT / "tissue_cyto3", path, weights=cyto3_file())
    print([(f.weights, f.engine, f.max_abs, f.mismatched, f.elements) for f in report.formats])
    assert report.good and all(verdict.ok for verdict in report.consumers)
    # 100 trees: features that fall on the other side of a threshold move a probability by 0.01 each; measured: 0.011
    assert max(f.max_abs or 0 for f in report.formats) <= 0.0301
    painted = fb.read_scribbles(data_file("tissue_scribbles.png"))
    tifffile.imwrite(tmp_path / "section.tif", data.immunohistochemistry(), photometric="rgb")
    image = fb.read_image(tmp_path / "section.tif", channels=[2, 0])
    labels = fb.open_package(path).predict(image, kind="labels")
    where = painted.points[:, -2], painted.points[:, -1]
    assert (labels[where] == painted.values).mean() >= 0.99
    assert np.unique(labels).tolist() == [1, 2, 3]


RECIPE = """
[image]
source = "skimage:cell"
[encoder]
name = "cellpose_cyto3"
range = [0, 255]
[package]
name = "features"
"""


@pytest.mark.parametrize(
    "old, new, message",
    [
        (
            "[package]",
            "[training]\n[package]",
            r"for a deep encoder alone, found encoder, image, package, training; add",
        ),
        ('"cellpose_cyto3"', '"filters"', r"expected one of the deep encoders mobile_sam, .* or add \[scribbles\] and"),
        (
            '"cellpose_cyto3"',
            '"sam2_base+filters"',
            r"expected one of the deep encoders .*, found 'sam2_base\+filters'",
        ),
        ('"cellpose_cyto3"', '"unicorn"', r"expected one of the deep encoders .*, found 'unicorn'; choose one"),
        (
            "range",
            "selection = {}\nrange",
            r"the keys name, preprocessing, range, tile in \[encoder\].* also selection",
        ),
        ("[0, 255]", "255", r"expected range = two numbers, low < high in .*recipe\.toml, found 255; correct it"),
        ("range", "tile = '512'\nrange", r"expected tile = a whole number in .*, found '512'; correct it"),
        ("[encoder]", "channels = []\n[encoder]", r"expected channels = whole numbers from 0 on in .*, found \[\]"),
        (
            "[encoder]",
            "channels = [1]\n[encoder]",
            r"expected channels of skimage\.data\.cell from 0 to 0, found \[1\]",
        ),
    ],
)
def test_recipe_that_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    (tmp_path / "recipe.toml").write_text(RECIPE.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(PackageError, match=message):
        build_recipe(tmp_path, tmp_path / "a.zip", weights=cyto3_file())
    assert not (tmp_path / "a.zip").exists()


@pytest.mark.parametrize(
    "old, new, code, message",
    [
        ("", "", 6, "fetch https://www.cellpose.org/models/cyto3 on another machine and put it there as"),
        ('"cellpose_cyto3"', '"sam_vit_h"', 6, "less than 2 GiB for a package, found about 2548 MB for sam_vit_h"),
        ("[0, 255]", "[255, 0]", 2, "expected finite low < high for each channel, found low [255.0] and high [0.0]"),
    ],
)
def test_command_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str, code: int, message: str
) -> None:
    monkeypatch.setenv("FORESTBRIDGE_OFFLINE", "1")
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path / "cache"))
    (tmp_path / "recipe.toml").write_text(RECIPE.replace(old, new, 1), encoding="utf-8")
    ended = call("build", tmp_path, "-o", tmp_path / "a.zip", program="ff-package")
    assert ended.code == code and message in " ".join(ended.err.split())
    assert not (tmp_path / "a.zip").exists()


def test_weights_for_filters_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"expected weights for a recipe with a deep encoder, found 'filters' in .*toml"
    ):
        build_recipe(ROOT / "tissue_filters", tmp_path / "a.zip", weights=cyto3_file())
    assert not list(tmp_path.iterdir())
