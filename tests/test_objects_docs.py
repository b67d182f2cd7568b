"""docs/objects.md: its lines run as they stand, in their order; what it says of the results is so; every column is listed."""

import csv
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile

import forestbridge as fb
from command_line import call
from forestbridge.image import as_image

DOCS = Path(__file__).parent.parent / "docs"
TEXT = (DOCS / "objects.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", TEXT, re.DOTALL)


def test_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("coins_scribbles.png", "coins_truth.png"):
        shutil.copy(DOCS / "images" / name, name)
    small = []
    for language, block in BLOCKS:
        if language == "python":
            exec(block, {})
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            ended = call(*arguments, program=program)
            assert ended.code == 0, f"{line}\n{ended.err}"
            if program == "forestbridge" and arguments[0] == "measure" and not small:
                small = [int(row["area_px"]) for row in table() if row["at_edge"] == "1"]
    areas = [int(row["area_px"]) for row in table()]
    assert len(areas) == 24 and min(areas) > 900
    assert small and min(small) < 150
    forest, otsu = (fb.evaluate(f"{name}.tif", "coins_truth.png") for name in ("coins_objects", "coins_otsu_objects"))
    assert (forest.objects[0].found, forest.n_truth) == (24, 24)
    assert otsu.objects[0].found == 21
    assert sum(fb.measure("coins_objects.tif")["area_px"]) == np.count_nonzero(tifffile.imread("coins_objects.tif"))
    scribbles = fb.read_scribbles("coins.geojson", shape={"Y": 303, "X": 384})
    np.testing.assert_array_equal(scribbles.at_plane() > 0, tifffile.imread("coins_objects.tif") > 0)


def table() -> list[dict[str, str]]:
    with Path("coins.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_every_column_is_listed_in_order() -> None:
    listed = [
        re.sub(r"NAME|…", ".*", name)
        for row in re.findall(r"^\| (`.*?) \|", TEXT[TEXT.index("## Columns") :], re.MULTILINE)
        for name in re.findall(r"`([^`]*)`", row)
    ]
    labels = np.zeros((2, 9, 12), np.uint8)
    labels[:, 2:6, 3:8] = 1
    image = fb.Image(labels, "ZYX", {"z": 2.0, "y": 0.5, "x": 0.5})
    shares = np.full((2, 2, 9, 12), 0.5, np.float32)
    for plane_by_plane in (False, True):
        found = fb.measure(image, image, as_image(shares, axes="CZYX"), plane_by_plane=plane_by_plane)
        for name in found.columns:
            assert any(re.fullmatch(pattern, name) for pattern in listed), name


def test_pictures_are_there() -> None:
    for name in re.findall(r"\]\((images/[^)]*)\)", TEXT):
        assert (DOCS / name).is_file(), name
