"""Packages of deep encoders alone: one output per map, valid, reproduced in every format; inspected and refused."""

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import forestbridge as fb
from command_line import call
from deep_networks import small_network
from deep_weights import cyto3_file
from forestbridge.archive import onnx_session
from forestbridge.encoders.combined import CombinedEncoder
from forestbridge.encoders.deep import open_deep_encoder
from forestbridge.errors import PackageError

CELL = data.cell()
"""(660, 550) bytes."""


def member(path: Path, name: str) -> bytes:
    with zipfile.ZipFile(path) as archive:
        return archive.read(name)


def test_small_network(tmp_path: Path) -> None:
    path = tmp_path / "small.zip"
    report = fb.write_encoder_package(path, small_network(), image=CELL[50:250, 60:260])
    assert [(f.weights, f.engine.split()[0], f.status) for f in report.formats] == [
        ("onnx", "forestbridge", "passed"),
        ("onnx", "bioimageio.core", "passed"),
        ("torchscript", "bioimageio.core", "passed"),
    ]
    assert {v.name for v in report.consumers if v.ok}.isdisjoint({"ilastik", "deepImageJ", "QuPath"})
    info = fb.inspect_package(path)
    assert info.kind == "encoder" and info.spec == small_network().spec
    assert [(o.id, *[a.size for a in o.axes[2:]]) for o in info.outputs] == [
        ("s2", 48, 48),
        ("s4", 24, 24),
        ("s8", 12, 12),
    ]
    rdf = yaml.safe_load(member(path, "rdf.yaml"))
    assert [o["axes"][2]["scale"] for o in rdf["outputs"]] == [2, 4, 8]
    assert rdf["outputs"][0]["axes"][1]["channel_names"][0] == "s2_0"
    assert rdf["config"]["forestbridge"]["weights"] == {"encoder": "small", "sha256": "0" * 64}
    readme = member(path, "README.md").decode()
    assert "| `s8` | 10 | 8 |" in readme and "exactly 96 pixels along y × 96 pixels along x" in readme


def test_synthetic_image_lies_in_the_range(tmp_path: Path) -> None:
    fb.write_encoder_package(tmp_path / "a.zip", small_network(channels=2), formats=["onnx"])
    raw = np.load(io.BytesIO(member(tmp_path / "a.zip", "raw_test.npy")))
    assert raw.shape == (1, 2, 96, 96) and raw.min() == 0 and raw.max() == 255


def test_cyto3_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real network: the package's maps are those of the network, and carry the weights' licence and citation."""
    monkeypatch.chdir(tmp_path)
    np.save("cell.npy", CELL[100:300, 100:300])
    command = ["package", "encoder", "cellpose_cyto3:s4,s8", "--weights", str(cyto3_file()), "--range", "0", "255"]
    ended = call(*command, "--image", "cell.npy", "--tile", "192", "--formats", "onnx", "-o", "cyto3.zip")
    assert ended.code == 0 and "about 11 MB" in ended.err
    encoder = open_deep_encoder(
        "cellpose_cyto3", weights=cyto3_file(), low=[0], high=[255], tile=192, maps=["s4", "s8"]
    )
    info = fb.inspect_package("cyto3.zip")
    assert info.spec == encoder.spec and info.license == "CC-BY-4.0"  # this file is a part of the published one
    assert "BSD-3-Clause" in info.metadata["weights"]["licence"]
    assert any(entry.get("doi") == "10.1038/s41592-025-02595-5" for entry in info.rdf["cite"])
    session = onnx_session(member(Path("cyto3.zip"), "weights.onnx"))
    tile = CELL[200:392, 150:342].astype(np.float32)[None]
    found = session.run(None, {"raw": tile[None]})
    for values, expected in zip(found, encoder.module(_tensor(tile)), strict=True):
        expected = expected.detach().numpy()
        assert np.abs(np.asarray(values) - expected).max() <= 1e-3 * np.abs(expected).max()  # rounded to float16


def _tensor(tile: np.ndarray):
    import torch

    return torch.from_numpy(tile[None])


def test_refusals(tmp_path: Path) -> None:
    with pytest.raises(PackageError, match=r"ends in \.zip"):
        fb.write_encoder_package(tmp_path / "a.onnx", small_network())
    with pytest.raises(ValueError, match="package each deep encoder alone"):
        fb.write_encoder_package(tmp_path / "a.zip", fb.open_encoder("filters"))  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


def test_combinations_have_no_package(tmp_path: Path) -> None:
    both = CombinedEncoder([small_network(), fb.open_encoder("filters")])
    with pytest.raises(
        ValueError, match=r"expected a deep encoder, .* found small\+filters; package each deep encoder alone"
    ):
        fb.write_encoder_package(tmp_path / "a.zip", both)  # pyright: ignore[reportArgumentType]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["filters", "--range", "0", "255"], "expected one of the deep encoders"),
        (["filters+cellpose_cyto3", "--range", "0", "255"], "each in a package of its own"),
        (["cellpose_cyto3"], "expected --image, whose intensities are measured, or --range"),
        (["sam_vit_h", "--range", "0", "255"], "less than 2 GiB"),
    ],
)
def test_command_refuses(tmp_path: Path, arguments: list[str], message: str) -> None:
    ended = call("package", "encoder", *arguments, "-o", tmp_path / "a.zip")
    assert ended.code != 0 and message in " ".join(ended.err.split())
    assert not list(tmp_path.iterdir())
