"""docs/encoders.md, "Encoders from packages": its lines run as they stand, in their order, and what it says of the results is so."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import forestbridge as fb
from command_line import done
from deep_weights import cyto3_file
from foreign_encoders import foreign_package
from test_foreign_encoders import network

TEXT = (Path(__file__).parent.parent / "docs" / "encoders.md").read_text(encoding="utf-8")
SECTION = TEXT[TEXT.index("## Encoders from packages") : TEXT.index("## Intensities")]
BLOCKS = re.findall(r"```(python|bash)\n(.*?)```", SECTION, re.DOTALL)
CELL = data.cell()[200:420, 180:400]


def test_lines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(cyto3_file(), "cyto3_downsample.pth")
    tifffile.imwrite("a.tif", CELL)
    labels = np.zeros(CELL.shape, np.uint8)
    labels[5:15, 5:60], labels[100:110, 50:105] = 1, 2
    tifffile.imwrite("a_labels.tif", labels)
    foreign_package(tmp_path / "model.zip", network())
    lines = 0
    for language, block in BLOCKS:
        if language == "python":
            names = {"fb": fb, "image": fb.read_image("a.tif")}
            exec(block, names)
            assert names["again"].spec == names["encoder"].spec  # pyright: ignore[reportAttributeAccessIssue]
            continue
        for line in block.splitlines():
            program, *arguments = shlex.split(line)
            done(*arguments, program=program)
            lines += 1
    assert lines == 6
    network_alone = fb.open_store("a_zip.features.ome.zarr").spec
    assert network_alone.name == "cellpose_cyto3" and fb.inspect_package("cyto3.zip").spec == network_alone
    info = fb.inspect_package("a_fused.zip")
    assert [w.format for w in info.weights] == ["onnx"] and info.spec == network_alone
    of_forest, of_package = (tifffile.imread(name) for name in ("a_zip.tif", "a_fused.tif"))
    inside = (..., slice(8, -8), slice(8, -8))
    assert np.mean(np.abs(of_forest[inside] - of_package[inside]) > 0.05) <= 1e-3
