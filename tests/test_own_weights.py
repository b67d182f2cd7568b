"""--weights FILE of `ff-package fused` and `forestbridge predict`: a network of one's own, and a cache that has nothing of it."""

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import torch

import forestbridge as fb
from command_line import call, done, tree, write_line
from deep_packages import PICTURE, Written, painted
from deep_weights import cyto3_file, mobile_sam_state
from forestbridge.cli.parsing import parse_weights


@pytest.fixture
def there(cyto3_package: Written, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a forest over cyto3, an image, and two weight files: the one of the training and another; the cache is empty."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FORESTBRIDGE_OFFLINE", "1")
    cyto3_package.forest.save("cells.forest")
    np.save("cell.npy", PICTURE)
    content = cyto3_file().read_bytes()
    Path("own.pth").write_bytes(content)
    Path("other.pth").write_bytes(content + b"0")
    return tmp_path


@pytest.mark.usefixtures("there", "without_schema")
def test_fused(cyto3_package: Written) -> None:
    command = ("fused", "cells.forest", "-i", "cell.npy", "-o", "own.zip", "--formats", "onnx")
    refused = call(*command, program="ff-package")
    assert refused.code == 6
    assert "or give it here: --weights FILE" in " ".join(refused.err.split())
    done(*command, "--weights", "own.pth", program="ff-package")
    spec, expected = fb.inspect_package("own.zip").spec, fb.open_package(cyto3_package.path).predict(PICTURE)
    assert spec == cyto3_package.forest.spec
    assert np.array_equal(fb.open_package("own.zip").predict(PICTURE), expected)


@pytest.mark.usefixtures("there")
def test_predict(cyto3_package: Written) -> None:
    command = ("predict", "cell.npy", "--forest", "cells.forest", "-o", "p.npy")
    refused = call(*command)
    assert refused.code == 6 and not Path("p.npy").exists()
    assert "or give it here: --weights FILE" in " ".join(refused.err.split())
    done(*command, "--weights", "own.pth")
    expected = fb.predict(PICTURE, cyto3_package.forest, encoder=cyto3_package.encoder)
    assert np.array_equal(np.load("p.npy"), expected)


FUSED = ("package", "fused", "cells.forest", "-o", "a.zip")
PREDICT = ("predict", "cell.npy", "--forest", "cells.forest", "-o", "p.npy")


@pytest.mark.parametrize("command", [FUSED, PREDICT], ids=["fused", "predict"])
@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)], ids=["", "dry run"])
def test_other_file_is_refused(there: Path, command: tuple[str, ...], dry_run: tuple[str, ...]) -> None:
    before = tree(there)
    ended = call(*command, "--weights", "other.pth", *dry_run)
    assert ended.code == 5
    message = " ".join(ended.err.split())
    assert "other.pth: expected the weights of cellpose_cyto3 with sha256 8b7f3ec8" in message
    assert "give the file that the features were made with" in message
    assert tree(there) == before


@pytest.mark.parametrize("command", [FUSED, PREDICT], ids=["fused", "predict"])
def test_dry_run_writes_nothing(there: Path, command: tuple[str, ...]) -> None:
    before = tree(there)
    done(*command, "--weights", "own.pth", "--dry-run")
    assert tree(there) == before


def test_weights_without_a_network(there: Path, cyto3_package: Written) -> None:
    (there / "line").mkdir()
    write_line(there / "line")
    for command in (
        ("package", "fused", "line/a.forest", "-o", "a.zip"),
        ("predict", "line/a.tif", "--forest", "line/a.forest", "-o", "p.npy"),
    ):
        ended = call(*command, "--weights", "own.pth")
        assert ended.code == 2
        assert "with a forest over a deep encoder only, found one over filters" in " ".join(ended.err.split())
    ended = call("predict", "cell.npy", "--package", cyto3_package.path, "-o", "p.npy", "--weights", "own.pth")
    assert ended.code == 2 and "a package holds its weights" in " ".join(ended.err.split())
    assert not Path("a.zip").exists() and not Path("p.npy").exists()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a.pt", Path("a.pt")),
        ("dinov2=" + 300 * "a" + ",sam2_base=~/b.pt", {"dinov2": Path(300 * "a"), "sam2_base": Path.home() / "b.pt"}),
        ("some folder/a=1,b.pt", Path("some folder/a=1,b.pt")),
        ("dinov2=a.pth, sam2_base = b=2.pt", {"dinov2": Path("a.pth"), "sam2_base": Path("b=2.pt")}),
    ],
)
def test_weights_option(text: str, expected: object) -> None:
    assert parse_weights(text) == expected


@pytest.mark.parametrize("text", ["a=", "a=b.pt,", "a=b.pt,c.pt", "a=b.pt,a=c.pt", "a=b.pt,=c.pt"])
def test_weights_option_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="expected --weights with one file, or one for each encoder"):
        parse_weights(text)


def test_a_file_that_is_named_like_an_option(there: Path) -> None:
    (there / "dinov2=own.pth").write_bytes(b"")
    assert parse_weights("dinov2=own.pth") == Path("dinov2=own.pth")


def test_a_file_for_each_network(there: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two networks in one store, a forest over both, and a cache that was emptied between."""
    torch.save(mobile_sam_state(), "sam.pt")
    both = "cellpose_cyto3=own.pth,mobile_sam=sam.pt"
    extract = ("extract", "cell.npy", "-o", "a.features.ome.zarr", "--encoder", "cellpose_cyto3:s8+MobileSAM:patch")
    before = tree(there)
    for weights, message in (
        ("own.pth", "a file of weights for each of cellpose_cyto3 and mobile_sam, found own.pth for all"),
        ("own.pth", "--weights cellpose_cyto3=FILE,mobile_sam=FILE"),
        ("dinov2=own.pth", "expected weights for encoders among cellpose_cyto3, mobile_sam, found dinov2"),
        ("cellpose_cyto3=own.pth,mobile_sam=", "one for each encoder"),
        (
            "cellpose_cyto3=own.pth,mobile_sam=sam.zip",
            "found the package sam.zip; give a package alone: --weights sam.zip",
        ),
        ("cellpose_cyto3=own.pth,mobile_sam=sam.pt,MobileSAM=own.pth", "expected weights once for each encoder"),
    ):
        ended = call(*extract, "--weights", weights)
        assert ended.code == 2 and message in " ".join(ended.err.split())
    assert tree(there) == before
    done(*extract, "--weights", both)
    np.save("labels.npy", painted())
    done("train", "a.features.ome.zarr", "--labels", "labels.npy", "--n-trees", "10", "-o", "both.forest")
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(there / "empty"))
    predict = ("predict", "cell.npy", "--forest", "both.forest", "-o", "both.npy")
    fused = ("package", "fused", "both.forest", "-o", "both.zip", "--dry-run")
    before = tree(there)
    for command in (predict, fused):
        ended = call(*command, "--weights", "own.pth")
        assert ended.code == 2 and "found own.pth for all" in ended.err
        ended = call(*command, "--weights", "cellpose_cyto3=other.pth,mobile_sam=sam.pt")
        assert ended.code == 5 and "expected the weights of cellpose_cyto3" in " ".join(ended.err.split())
    assert tree(there) == before
    for command in (predict, fused):
        done(*command, "--weights", both)
    done("predict", "a.features.ome.zarr", "--forest", "both.forest", "-o", "stored.npy")
    assert np.array_equal(np.load("both.npy"), np.load("stored.npy"))
