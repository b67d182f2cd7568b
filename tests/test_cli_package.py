"""``forestbridge package`` and ``ff-package``: written, checked, inspected, run; the same answer from both programs."""

import re
from pathlib import Path

import numpy as np
import pytest

import forestbridge as fb
import hostile_descriptions
import hostile_zips
from command_line import CELLS, RECIPE, call, done, tree, write_line
from packages import build, npy


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with images, scribbles, a store, a forest, and its package a.zip with ONNX and TorchScript weights."""
    path = tmp_path_factory.mktemp("line")
    write_line(path)
    arguments = ["--image", path / "a.tif", "--author", "Ada Lovelace", "Alan Turing", "--name", "cells by filters"]
    ended = done("fused", path / "a.forest", "-o", path / "a.zip", *arguments, program="ff-package")
    assert ended.out.endswith(f"{path / 'a.zip'}\n")
    assert "✓ torchscript in bioimageio.core" in ended.out
    assert (
        f"a crop of {path / 'a.tif'} travels in the zip as test image; choose another with --test-image\n" in ended.err
    )
    assert "licence CC-BY-4.0; choose another with --license\n" in ended.err
    assert "no --author" not in ended.err
    return path


@pytest.fixture(autouse=True)
def there(line: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in a folder of the test's own, which has the line's files under ``line``."""
    monkeypatch.chdir(tmp_path)
    Path("line").symlink_to(line)


def test_inspect() -> None:
    document = done("inspect", "line/a.zip", "--json", program="ff-package").json()
    assert (document["name"], document["kind"]) == ("cells by filters", "fused")
    assert document["authors"] == ["Ada Lovelace", "Alan Turing"]
    assert done("package", "inspect", "line/a.zip", "--json").json() == document
    info = done("info", "line/a.zip", "--json").json()
    assert (info["kind"], info["package_kind"], info["sha256"]) == ("package", "fused", document["sha256"])
    text = done("inspect", "line/a.zip", program="ff-package").out
    assert "kind: fused\n" in text
    assert "  probabilities: float32, batch, channel 2 (background, cell), y as raw.y, x as raw.x\n" in text
    assert "code: weights.torchscript: TorchScript is a program\n" in text
    assert len(text.splitlines()) < 45, "fits on a screen"


def test_check_runs_code_with_trust_only() -> None:
    untrusted = done("check", "line/a.zip", "--json", program="ff-package").json()
    assert untrusted["good"]
    by_format = {f["weights"]: f["status"] for f in untrusted["formats"]}
    assert by_format == {"onnx": "passed", "torchscript": "not run"}
    [reason] = [f["reason"] for f in untrusted["formats"] if f["weights"] == "torchscript"]
    assert reason.endswith(f"--trust sha256:{untrusted['sha256']}")
    trusted = done("check", "line/a.zip", "--trust", f"sha256:{untrusted['sha256']}", program="ff-package").out
    assert "✓ torchscript in bioimageio.core" in trusted
    wrong = call("check", "line/a.zip", "--trust", f"sha256:{'0' * 64}", program="ff-package")
    assert (wrong.code, wrong.out) == (5, "")
    assert "expected the file with the hash that was trusted" in wrong.err


def test_check_of_a_package_that_does_not_do_what_it_says() -> None:
    build(Path("bad.zip"), files={"test_probabilities.npy": npy(np.zeros((1, 2, 128, 128), np.float32))})
    ended = call("check", "bad.zip", program="ff-package")
    assert ended.code == 1
    assert "✗ onnx in forestbridge: failed" in ended.out
    assert "expected at most" in ended.out


def test_predict_with_a_package() -> None:
    done("predict", "line/a.tif", "--package", "line/a.zip", "-o", "p.npy", "--tile", "64", "--device", "cpu")
    expected = fb.predict(CELLS.image, fb.load_forest("line/a.forest"))
    assert (np.abs(np.load("p.npy") - expected) > 1e-4).mean() < 1e-3
    done("predict", "line/a.tif", "line/b.tif", "--package", "line/a.zip", "-o", "out", "--kind", "labels")
    assert sorted(p.name for p in Path("out").iterdir()) == ["a_probabilities.tif", "b_probabilities.tif"]


def test_extract_like_a_package() -> None:
    done("extract", "line/b.tif", "-o", "b.features.ome.zarr", "--like", "line/a.zip")
    assert fb.open_store("b.features.ome.zarr").spec == fb.load_forest("line/a.forest").spec


def test_forest_package_of_one_format() -> None:
    ended = done("package", "forest", "line/a.forest", "-o", "f.zip", "--formats", "onnx", "--json")
    assert [f["weights"] for f in ended.json()["formats"]] == ["onnx", "onnx"]
    assert "no --author given: the package names 'unnamed author'\n" in ended.err
    assert "no --image given: the test image is synthetic\n" in ended.err
    assert fb.inspect_package("f.zip").kind == "forest"
    refused = call("predict", "line/a.tif", "--package", "f.zip", "-o", "p.tif")
    assert refused.code == 5
    assert "expected a package from image to classes" in refused.err
    assert not Path("p.tif").exists()


def test_build() -> None:
    Path("recipe.toml").write_text(RECIPE, encoding="utf-8")
    assert done("build", ".", "-o", "1.zip", "--json", program="ff-package").json()["good"]
    before = tree(Path.cwd())
    assert call("build", ".", "-o", "1.zip", program="ff-package").code == 2
    assert tree(Path.cwd()) == before


HOSTILE = {**hostile_zips.CASES, **hostile_descriptions.CASES}
"""Packages that are refused before anything in them is run."""


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_packages(tmp_path: Path, name: str) -> None:
    write, message = HOSTILE[name]
    path = tmp_path / "case.zip"
    write(path)
    before = tree(tmp_path)
    ended = call("info", path)
    assert (ended.code, ended.out) == (5, ""), ended.err
    assert re.search(message, ended.err.replace("\n", " "))
    assert "Traceback" not in ended.err
    assert "\x1b" not in ended.err, "no escape sequence of a file reaches the terminal"
    assert tree(tmp_path) == before
