"""docs/command_line.md: every command and option is in it, and its examples run as they stand."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from scipy import ndimage
from typer.main import get_command

import forestbridge as fb
from command_line import CELLS, RECIPE, call, write_line
from deep_weights import cyto3_file
from forestbridge.cli.app import app, command_of
from forestbridge.phantom import phantom

TEXT = (Path(__file__).parent.parent / "docs" / "command_line.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", TEXT, re.DOTALL | re.MULTILINE))
SHARED = "Options of several commands"
MACROS = "For macros"
NOT_RUN = {"forestbridge demo -o demo", "forestbridge encoders download sam2_base"}
"""The first takes a minute, and `scripts/demo` runs it; the second needs a network, and `test_weights.py` has its own."""


def commands(command: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every command with its name."""
    for word, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {word}".strip())
    if not hasattr(command, "commands"):
        yield name, command


def options_in(section: str) -> set[str]:
    """Return the options that the rows of a section's tables begin with."""
    rows = re.findall(r"^\| (`-.*?) \|", SECTIONS[section], re.MULTILINE)
    return {name.split()[0] for row in rows for name in re.findall(r"`(-[^`]*)`", row)}


def test_every_command_has_a_section() -> None:
    assert {name for name, _ in commands(get_command(app))} == set(SECTIONS) - {SHARED, MACROS, "Rules of all commands"}


@pytest.mark.parametrize("name", [name for name, _ in commands(get_command(app))])
def test_options_are_those_of_the_command(name: str) -> None:
    command = dict(commands(get_command(app)))[name]
    actual = {o for p in command.params if p.param_type_name == "option" for o in p.opts} - {"--help", "-h"}
    assert options_in(name) == actual - options_in(SHARED)
    assert re.search(rf"^(forestbridge|ff-package) {name.removeprefix('package ')} ?", examples(name)[0])


def test_options_of_macros() -> None:
    command = dict(commands(command_of(app)))["predict"]
    actual = {o for p in command.params if p.param_type_name == "option" and not p.expose_value for o in p.opts}
    assert options_in(MACROS) == actual - {"--help", "-h"}


def examples(section: str) -> list[str]:
    return [
        line for block in re.findall(r"```bash\n(.*?)```", SECTIONS[section], re.DOTALL) for line in block.splitlines()
    ]


def write_nuclei_project(path: Path) -> None:
    """Write the ilastik project that the examples name: a few trees over a few features."""
    sample = phantom((96, 112), classes=2)
    encoder = fb.open_encoder("filters", selection={"GaussianSmoothing": [1.0]})
    forest = fb.train([(sample.image, sample.scribbles)], encoder=encoder, n_trees=3, engine="sklearn")
    fb.write_project(path, forest, [(fb.as_image(sample.image), fb.as_scribbles(sample.scribbles))])


def write_objects(folder: Path) -> None:
    """Write the label image that the examples name: the cells of a.tif, numbered."""
    tifffile.imwrite(folder / "a_objects.tif", ndimage.label(CELLS.truth == 2)[0].astype(np.uint16))


def write_training_set(folder: Path) -> None:
    """Write an image and its dense masks."""
    folder.mkdir()
    tifffile.imwrite(folder / "a.tif", CELLS.image)
    tifffile.imwrite(folder / "a_masks.tif", ndimage.label(CELLS.truth == 2)[0].astype(np.uint16))


def test_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "small").mkdir()
    write_line(tmp_path / "small")
    monkeypatch.chdir(tmp_path)
    for seed, name in enumerate(("a", "b", "c")):
        tifffile.imwrite(f"{name}.tif", phantom((96, 112), classes=2, seed=seed).image)
    tifffile.imwrite("a_labels.tif", CELLS.scribbles)
    Path("cyto3_downsample.pth").write_bytes(cyto3_file().read_bytes())
    write_objects(Path("small"))
    write_training_set(Path("training"))
    write_nuclei_project(Path("nuclei.ilp"))
    Path("Fiji.app/plugins").mkdir(parents=True)
    Path("recipe").mkdir()
    Path("recipe/recipe.toml").write_text(RECIPE.replace("line/", "../"), encoding="utf-8")
    for line in [line for section in SECTIONS for line in examples(section)]:
        if line in NOT_RUN:
            continue
        program, *arguments = shlex.split(line)
        ended = call(*arguments, program=program)
        assert ended.code == 0, f"{line}\n{ended.err}"
        assert ended.out
        if line.startswith("forestbridge train"):  # from here on a smaller forest, whose package is written in seconds
            Path("nuclei.forest").write_bytes(Path("small/a.forest").read_bytes())
    found = {path.name for path in tmp_path.iterdir()}
    assert found >= {"a.features.ome.zarr", "stores", "b_labels.tif", "nuclei.forest", "results", "nuclei.zip"}
    assert np.isfinite(tifffile.imread("b_probabilities.tif")).all()
