"""``forestbridge encoders``: the list, own weights into the cache, and what an encoder costs."""

from pathlib import Path

import pytest

from command_line import call
from deep_weights import cyto3_file
from forestbridge.encoders import NAMES


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path))
    monkeypatch.setenv("FORESTBRIDGE_OFFLINE", "1")
    return tmp_path / "weights"


def test_list(folder: Path) -> None:
    listed = call("encoders", "--json").json()
    assert [e["name"] for e in listed] == list(NAMES)
    sam2 = listed[NAMES.index("sam2_base")]
    assert (sam2["features"], sam2["maps"], sam2["parameters"]) == (768, {"s4": 2, "s8": 4, "s16": 8}, 69_106_816)
    assert (sam2["tile"], sam2["halo"], sam2["input_size"]) == ([512, 512], [64, 64], [1024, 1024])
    assert sam2["all_maps"]["trunk32"] == {"features": 896, "stride": 16}
    assert (sam2["licence"], sam2["weights"], sam2["own_weights"]) == ("Apache-2.0", "not downloaded", [])
    text = call("encoders").out
    assert all(name in text for name in NAMES)
    assert "trained on images that are CC-BY-NC" in text
    assert not folder.exists()


def test_own_weights(folder: Path) -> None:
    ended = call("encoders", "download", "Cellpose_cyto3", "--weights", str(cyto3_file()))
    assert (ended.code, ended.err) == (0, "")
    (path,) = folder.iterdir()
    assert ended.out == f"{path}\n"
    again = call("encoders", "download", "cellpose_cyto3", "--weights", str(cyto3_file()), "--json").json()
    assert (again["encoder"], again["weights"], again["licence"]) == ("cellpose_cyto3", str(path), None)
    assert path.name == f"cellpose_cyto3-{again['sha256'][:16]}.safetensors"
    entry = call("encoders", "--json").json()[-1]
    assert (entry["weights"], entry["own_weights"]) == ("not downloaded", [again["sha256"]])
    measured = call("encoders", "--measure", "cellpose_cyto3:s1", "--json").json()
    assert measured["weights"] == again["sha256"]


@pytest.mark.parametrize(("name", "weights"), [("filters", "none needed"), ("mobile_sam:patch", "random")])
def test_measure(folder: Path, name: str, weights: str) -> None:
    ended = call("encoders", "--measure", name, "--json")
    measured = ended.json()
    assert (measured["name"], measured["weights"]) == (name.split(":")[0], weights)
    assert measured["cpu_seconds_per_megapixel"] > 0
    assert measured["seconds_per_megapixel"] > 0
    assert measured["peak_memory_mb"] > 50
    assert not folder.exists()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ("download", 2, "expected one of: encoders; encoders download NAME; encoders --measure NAME"),
        ("list sam2_base", 2, "expected one of: encoders; encoders download NAME"),
        ("download dinov2 --measure dinov2", 2, "expected one of: encoders; encoders download NAME"),
        ("--weights x.pt", 2, "expected --weights with download NAME, found it alone"),
        ("download sam3", 2, "expected one of the deep encoders mobile_sam, "),
        ("--measure sam3", 2, "expected one of the encoders filters, mobile_sam, "),
        ("download dinov2", 6, "dinov2_vits14_reg4_pretrain.pth on another machine and put it there as"),
        ("download dinov2 --weights none.pt", 6, "expected a weight file at none.pt, found none"),
        (f"download dinov2 --weights {cyto3_file()}", 5, "expected the 175 tensors of dinov2, found others"),
        (f"download dinov2 --weights {__file__}", 5, "no weight file, or carries code"),
    ],
)
def test_refused(folder: Path, arguments: str, code: int, message: str) -> None:
    ended = call("encoders", *arguments.split())
    assert ended.code == code
    assert message in ended.err
    assert not folder.exists() or not list(folder.iterdir())
