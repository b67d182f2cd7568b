"""What the README shows is what happens: its Python block and its command lines run as they stand."""

import re
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

import forestbridge as fb
from forestbridge.cli import main, main_package
from forestbridge.phantom import phantom

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Work in a folder with the image and labels that the README names."""
    sample = phantom((160, 176), classes=2)
    tifffile.imwrite(tmp_path / "a.tif", sample.image)
    tifffile.imwrite(tmp_path / "a_labels.tif", sample.scribbles)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def block(language: str, containing: str) -> str:
    [found] = [b for b in re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL) if containing in b]
    return found


def test_python_block(folder: Path) -> None:
    names: dict = {}
    exec(block("python", "fb.train"), names)
    assert names["X"].shape == (49, 160, 176)
    assert names["P"].shape == names["Q"].shape == (2, 160, 176)
    difference = np.abs(names["P"] - names["Q"])
    assert difference.max() <= 0.02
    assert (difference > 1e-6).mean() < 1e-3
    assert (names["P"].argmax(0) == names["Q"].argmax(0)).mean() > 0.9999
    truth = phantom((160, 176), classes=2).truth
    assert (names["P"].argmax(0) + 1 == truth).mean() > 0.9
    assert (folder / "p.ome.zarr").is_dir()


def test_command_lines(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    for line in block("bash", "forestbridge train").strip().splitlines():
        program, *arguments = shlex.split(line)
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as end:
            {"forestbridge": main, "ff-package": main_package}[program]()
        assert not end.value.code, f"{line}\n{capsys.readouterr().err}"
    assert {p.name for p in folder.iterdir()} >= {"a_probabilities.tif", "a_segmentation.png", "nuclei.zip"}
    assert tifffile.imread(folder / "a_probabilities.tif").shape == (2, 160, 176)


def test_ilastik_lines(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    sample = phantom((160, 176), classes=2)
    encoder = fb.open_encoder("filters", selection={"GaussianSmoothing": [1.0, 3.5]})
    forest = fb.train([(sample.image, sample.scribbles)], encoder=encoder, n_trees=5)
    forest.save("nuclei.forest")
    fb.write_project("nuclei.ilp", forest, [(fb.read_image("a.tif"), fb.as_scribbles(sample.scribbles))])
    for line in block("bash", "ff-package convert").strip().splitlines():
        program, *arguments = shlex.split(line, comments=True)
        monkeypatch.setattr(sys, "argv", [program, *arguments])
        with pytest.raises(SystemExit) as end:
            {"forestbridge": main, "ff-package": main_package}[program]()
        assert not end.value.code, f"{line}\n{capsys.readouterr().err}"
    assert {p.name for p in folder.iterdir()} >= {"nuclei_from_ilastik.zip", "a_Simple Segmentation.h5", "back.ilp"}


def test_links_lead_somewhere() -> None:
    root = Path(__file__).parent.parent
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert target.startswith("https://") or (root / target).exists(), target
