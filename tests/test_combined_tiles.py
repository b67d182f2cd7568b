"""Combinations of networks whose tiles differ: a side for each by name, one core for all, and the values of each alone."""

from pathlib import Path

import numpy as np
import pytest
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")

import torch

import forestbridge as fb
from command_line import call, done
from deep_networks import small_network
from deep_weights import cyto3_file, mobile_sam_state, random_encoder
from forestbridge.cli.parsing import parse_tile
from forestbridge.encoders.combined import CombinedEncoder, combine_specs
from forestbridge.encoders.features import features
from forestbridge.encoders.networks import network_of, plan_spec
from forestbridge.encoders.planning import tiles_of_one_core
from forestbridge.spec import EncoderSpec

CELL = data.cell()[100:220, 100:250]
"""(120, 150) bytes: two cores of 112 along each axis."""


def planned(name: str, **options) -> EncoderSpec:
    return plan_spec(network_of(name), channels=1, low=[0], high=[255], weights="0" * 64, **options)


@pytest.mark.parametrize(
    "names, tiles, core",
    [
        (("dinov2", "sam2_base"), (448, 464), 336),
        (("dinov2", "micro_sam_lm"), (448, 448), 336),
        (("dinov2", "mobile_sam", "cellpose_cyto3"), (448, 448, 464), 336),
        (("dinov2", "cellpose_cyto3"), (504, 520), 392),
        (("sam2_large", "cellpose_cyto3"), (512, 512), 384),
    ],
)
def test_tiles_of_one_core(names: tuple[str, ...], tiles: tuple[int, ...], core: int) -> None:
    """What the refusal proposes is near to the default, and goes together."""
    found = tiles_of_one_core([planned(name) for name in names])
    assert found == {name: (core, side) for name, side in zip(names, tiles, strict=True)}
    specs = [planned(name, tile=side) for name, side in zip(names, tiles, strict=True)]
    assert combine_specs(specs).tile == (core, core)
    enlarged = [(spec.input_size, planned(spec.name).input_size) for spec in specs]
    assert all((a is None) == (b is None) for a, b in enlarged), (
        "the network sees objects at the size that it sees by default"
    )


def test_refusal_says_what_to_do() -> None:
    expected = (
        r"found cores of dinov2 \(378, 378\), sam2_base \(384, 384\); extract with --tile dinov2=448,sam2_base=464 "
        r"\(tile=\{\.\.\.\}\), which gives each a core of 336, or combine one of them with the filter bank"
    )
    with pytest.raises(ValueError, match=expected):
        combine_specs([planned("dinov2"), planned("sam2_base")])
    assert (
        tiles_of_one_core([planned("dinov2"), planned("sam2_base", zoom=1, tile=256)]) is None
    )  # larger ones are enlarged
    assert tiles_of_one_core([planned("dinov2"), small_network().spec]) is None


def test_refused_before_weights_are_fetched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FORESTBRIDGE_OFFLINE", "1")  # a download would be refused for that
    np.save("cell.npy", CELL)
    extract = ("extract", "cell.npy", "-o", "a.features.ome.zarr", "--encoder", "sam2_base:s8+filters+DinoV2")
    ended = call(*extract)
    assert ended.code == 2
    assert "found cores of sam2_base (384, 384), dinov2 (378, 378)" in " ".join(ended.err.split())
    assert call(*extract, "--tile", "dinov2=448,sam2_base=464").code == 6  # these go together
    for names, message in (
        ("sam2_base+nothing", "expected one of the encoders .*, found 'nothing'"),
        ("sam2_base:s4+SAM2_Base:s8", "expected two or more different encoders .*, found sam2_base.sam2_base"),
    ):
        with pytest.raises(ValueError, match=message):
            fb.open_encoder(names, channels=1, low=[0], high=[255])


def test_dinov2_beside_sam_has_the_values_of_each() -> None:
    """Networks with random weights; cores of 112 from tiles of 140 and 144."""
    alone = [
        random_encoder("dinov2", tile=140),
        random_encoder("sam2_base", tile=144, zoom=2, maps=["trunk4", "trunk8"]),
    ]
    assert [encoder.spec.tile for encoder in alone] == [(112, 112)] * 2
    both = CombinedEncoder(alone)
    assert (both.spec.tile, both.spec.halo) == ((112, 112), (16, 16))
    found, start = features(CELL, both), 0
    for encoder in alone:
        expected = features(CELL, encoder)
        assert np.array_equal(found[start : start + len(expected)], expected), encoder.spec.name
        start += len(expected)


def test_options_of_each(tmp_path: Path) -> None:
    """Sides, enlargements and weights go to the encoder of their name; an encoder that is not named takes its default."""
    torch.save(mobile_sam_state(), tmp_path / "mobile_sam.pt")
    options = {"channels": 1, "low": [0], "high": [255]}
    encoder = fb.open_encoder(
        "cellpose_cyto3:s8+filters+MobileSAM:patch",
        **options,
        tile={"mobile_sam": 256},
        zoom={"MobileSAM": 2},
        weights={"cellpose_cyto3": cyto3_file(), "mobile_sam": tmp_path / "mobile_sam.pt"},
    )
    assert isinstance(encoder, CombinedEncoder)
    cyto3, _, sam = (part.spec for part in encoder.parts)
    assert (cyto3.tile, sam.tile, sam.halo, sam.input_size) == ((384, 384), (192, 192), (32, 32), (512, 512))
    assert encoder.spec.tile == (384, 384)


@pytest.mark.parametrize("option", ["tile", "zoom", "weights"])
def test_other_names_are_refused(option: str) -> None:
    with pytest.raises(
        ValueError, match=rf"expected {option} for encoders among dinov2, sam2_base, found cellpose_cyto3; name"
    ):
        fb.open_encoder("filters+dinov2+sam2_base:s4", **{option: {"cellpose_cyto3": 512}})


@pytest.mark.parametrize(
    "text, expected", [("512", 512), ("dinov2=448, sam2_base=464", {"dinov2": 448, "sam2_base": 464})]
)
def test_tile_option(text: str, expected: object) -> None:
    assert parse_tile(text) == expected


@pytest.mark.parametrize("text", ["", "0", "-5", "a", "a=b", "512,448", "a=512,448", "a=512,a=448", "a=512,"])
def test_tile_option_that_is_none(text: str) -> None:
    with pytest.raises(ValueError, match=r"expected --tile with one side in pixels, 512, or one for each encoder"):
        parse_tile(text)


def test_by_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("cell.npy", CELL)
    command = ["extract", "cell.npy", "-o", "a.features.ome.zarr", "--weights", cyto3_file(), "--range", "0", "255"]
    ended = call(*command, "--encoder", "filters+cellpose_cyto3:s8", "--tile", "cellpose_cyto3=240")
    assert ended.code == 0
    assert fb.open_store("a.features.ome.zarr").spec.tile == (112, 112)
    done(*command, "--encoder", "cellpose_cyto3:s8", "--tile", "cellpose_cyto3=240", "--overwrite")
    assert fb.open_store("a.features.ome.zarr").spec.tile == (112, 112)
    ended = call(*command, "--encoder", "filters+cellpose_cyto3", "--tile", "dinov2=140")
    assert ended.code == 2 and "expected tile for encoders among cellpose_cyto3, found dinov2" in ended.err
