"""Which programs run a package: every rule is broken alone, and says so for exactly the programs that have it."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from broken_rules import RULES, TOLERANCE, Change, both, drop, keras_only, onnx_only, put, volume
from forestbridge.archive import PackageInfo, inspect_package
from forestbridge.consumers import CONSUMERS, consumer_report, format_consumer_table
from forestbridge.spec import EncoderSpec, MapSpec
from packages import build, graph


def found(info: PackageInfo) -> dict[str, set[str]]:
    """Return reason → programs."""
    reasons: dict[str, set[str]] = {}
    for verdict in consumer_report(info):
        assert verdict.ok == (not verdict.reasons)
        for reason in verdict.reasons:
            reasons.setdefault(reason, set()).add(verdict.name)
    return reasons


def notes(info: PackageInfo, name: str) -> str:
    return "\n".join(next(verdict for verdict in consumer_report(info) if verdict.name == name).notes)


def test_good_package_runs_everywhere(tmp_path: Path) -> None:
    report = consumer_report(inspect_package(build(tmp_path / "a.zip")))
    assert [(verdict.name, verdict.ok, verdict.reasons) for verdict in report] == [
        (name, True, ()) for name in CONSUMERS
    ]


@pytest.mark.parametrize("name", RULES)
def test_rule(tmp_path: Path, name: str) -> None:
    change, files, consumers, match = RULES[name]
    reasons = found(inspect_package(build(tmp_path / "a.zip", change, files=files)))
    said = [programs for reason, programs in reasons.items() if re.search(match, reason)]
    assert said == [set(consumers.split())], reasons


def test_wide_tile_does_not_fit_a_message_of_ilastik(tmp_path: Path) -> None:
    def wide(rdf: dict[str, Any]) -> None:
        rdf["inputs"][0]["axes"][1]["channel_names"] = [f"f{n}" for n in range(112)]

    files = {"weights.onnx": graph(inputs=("b", 112, "y", "x"))}
    reasons = found(inspect_package(build(tmp_path / "a.zip", wide, files=files)))
    text = "inputs[0]: one tile of 112 channels and 512 × 512 has 117440512 bytes, more than the 104857600 of a message"
    assert [reason.startswith(text) for reason in reasons] == [True]

    rdf_100 = both("axes", 1, "channel_names")([f"f{n}" for n in range(100)])
    files = {"weights.onnx": graph(inputs=("b", 100, "y", "x"), classes=100)}
    assert found(inspect_package(build(tmp_path / "b.zip", rdf_100, files=files))) == {}


def test_volume_goes_in_tiles_of_64(tmp_path: Path) -> None:
    def wide(rdf: dict[str, Any]) -> None:
        volume(rdf)
        rdf["outputs"][0]["axes"][1]["channel_names"] = [f"f{n}" for n in range(101)]

    files = {"weights.onnx": graph(inputs=("b", 1, "z", "y", "x"), classes=101)}
    reasons = "\n".join(found(inspect_package(build(tmp_path / "a.zip", wide, files=files))))
    assert "outputs[0]: one tile of 101 channels and 64 × 64 × 64 has 105906176 bytes" in reasons


def test_fixed_size_is_its_own_tile(tmp_path: Path) -> None:
    info = inspect_package(build(tmp_path / "a.zip", both("axes", 2, "size")(96)))
    assert found(info) == {}
    info = inspect_package(
        build(tmp_path / "b.zip", lambda rdf: (put(96, "inputs", 0, "axes", 2, "size")(rdf), volume)[0])
    )
    assert found(info) == {}


def test_notes(tmp_path: Path) -> None:
    info = inspect_package(build(tmp_path / "a.zip"))
    assert notes(info, "ilastik") == "takes images of exactly 1 channel (inputs[0])"
    assert "up to 4096 × 4096 pixels as one tile, which needs about 0.1 GiB (2 features as float32)" in notes(
        info, "deepImageJ"
    )
    maps = (MapSpec("deep", tuple(f"f{n}" for n in range(64)), stride=4),)
    spec = EncoderSpec("deep", 1, "yx", 1, (0, 0), maps, {"rule": "raw"}, {})
    assert "about 4.0 GiB (64 features as float32)" in notes(replace(info, spec=spec), "deepImageJ")
    assert "sample_tensor: reviewers expect a sample image" in notes(info, "bioimage.io")
    assert "authors: reviewers expect one author or maintainer with a github_user" in notes(info, "bioimage.io")
    assert notes(info, "Python") == notes(info, "QuPath") == ""


@pytest.mark.parametrize(
    "change, name, note",
    [
        (drop("config", "bioimageio"), "deepImageJ", "config.bioimageio.nickname: some versions look for it"),
        (drop("id"), "deepImageJ", "id: without one it shows a name of its own making"),
        (put(500, *TOLERANCE), "ilastik", "releases of 2025 accept at most 100, found 500"),
        (
            put(32, "outputs", 0, "axes", 2, "halo"),
            "deepImageJ",
            "axis y: expected a min above two halos of 32, found 64",
        ),
        (
            put({"min": 64, "step": 48}, "inputs", 0, "axes", 2, "size"),
            "deepImageJ",
            "min should be a multiple of step",
        ),
        (drop("covers"), "bioimage.io", "covers: reviewers expect a picture"),
        (keras_only, "Python", "weights.onnx: without it the package runs only in bioimageio.core"),
    ],
)
def test_note(tmp_path: Path, change: Change, name: str, note: str) -> None:
    assert note in notes(inspect_package(build(tmp_path / "a.zip", change)), name)


def test_table(tmp_path: Path) -> None:
    report = consumer_report(inspect_package(build(tmp_path / "a.zip", onnx_only)))
    first, *rest = format_consumer_table(report).split("\n")
    assert first == "runs in: Python ✓ · ilastik ✗ · deepImageJ ✓ · QuPath ✗ · bioimage.io ✓"
    assert (
        rest[0] == "  ilastik ✗ weights.torchscript: ilastik has PyTorch only, found none; export TorchScript as well"
    )
    assert "  ilastik: takes images of exactly 1 channel (inputs[0])" in rest
