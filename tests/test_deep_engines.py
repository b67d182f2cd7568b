"""Fused packages of networks in the engines inside Java programs: onnxruntime 1.13.1, and DJL with torch 2.0.0 and 2.7.1."""

from pathlib import Path

import pytest

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

from command_line import done
from deep_packages import PICTURE, Written, painted
from deep_weights import random_encoder
from forestbridge.archive import inspect_package
from forestbridge.consumers import JAVA_ENGINES
from forestbridge.image import as_image
from forestbridge.package import write_package
from forestbridge.train import train
from java_here import require_engines

pytestmark = pytest.mark.usefixtures("without_schema")


def assert_runs_in_java(path: Path) -> None:
    """Check a package by command: each engine reproduces the test within the tolerance that the package declares."""
    trust = f"sha256:{inspect_package(path).sha256}"
    document = done("check", path, "--java", "--trust", trust, "--json", program="ff-package").json()
    rows = {f["engine"]: f for f in document["formats"]}
    for engine in JAVA_ENGINES:
        row = rows[engine.name]
        print(f"{engine.name}: {row['max_abs']:.1e}, {row['mismatched']} of {row['elements']} values")
        assert row["status"] == "passed", row["reason"]
    assert document["good"]


def test_cyto3(cyto3_package: Written) -> None:
    require_engines()
    assert_runs_in_java(cyto3_package.path)


def test_attention(tmp_path: Path) -> None:
    """MobileSAM as far as its second stage, two blocks of attention in windows, with random weights."""
    require_engines()
    encoder = random_encoder("mobile_sam", exportable=True, tile=64, zoom=1, maps=["stage2"])
    forest = train([(as_image(PICTURE), painted())], encoder=encoder, n_trees=20, seed=0, engine="sklearn")
    report = write_package(tmp_path / "attention.zip", forest, image=PICTURE, encoder=encoder)
    assert report.good
    assert_runs_in_java(tmp_path / "attention.zip")
