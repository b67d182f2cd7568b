"""Encoder packages of ours as encoders: the same spec as the network's, and the same maps, by Python and by command."""

import io
from pathlib import Path

import numpy as np
import pytest
import tifffile
from skimage import data

pytest.importorskip("torch", reason="the extra 'torch' is not installed")
pytest.importorskip("onnxruntime", reason="the extra 'cpu' is not installed")

import forestbridge as fb
from command_line import call
from deep_networks import small_network
from deep_weights import cyto3_file
from forestbridge.archive import read_member
from forestbridge.encoders import Encoder, encoder_from_spec
from forestbridge.encoders.conformance import EncoderConformance
from forestbridge.errors import PackageError, ResourceError, SpecMismatchError
from forestbridge.graphs.encoder import stored_maps
from packages import build

CELL = data.cell()[200:360, 180:340]
"""(160, 160) bytes: four tiles of 96."""


class TestConformance(EncoderConformance):
    @pytest.fixture
    def encoder(self, tmp_path: Path) -> Encoder:
        fb.write_encoder_package(tmp_path / "small.zip", small_network(), formats=["onnx"])
        return fb.open_encoder(tmp_path / "small.zip")


@pytest.fixture(scope="module")
def cyto3(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Encoder]:
    """The real network, and its package."""
    path = tmp_path_factory.mktemp("package") / "cyto3.zip"
    encoder = fb.open_encoder(
        "cellpose_cyto3:s4,s8", weights=cyto3_file(), low=[0], high=[255], tile=224, exportable=True
    )
    fb.write_encoder_package(path, encoder, image=data.cell(), formats=["onnx"])  # pyright: ignore[reportArgumentType]
    return path, encoder


def test_package_is_the_encoder(cyto3: tuple[Path, Encoder], tmp_path: Path) -> None:
    path, network = cyto3
    encoder = fb.open_encoder(path, images=[CELL])
    assert encoder.spec.fingerprint() == network.spec.fingerprint()
    info = fb.inspect_package(path)
    declared = info.metadata["deviations"]["onnx"]  # as a share of a map's largest value
    tile = np.load(io.BytesIO(read_member(info, "raw_test.npy")))[0]
    core = tuple(slice(h, h + c) for h, c in zip(network.spec.halo, network.spec.tile or (), strict=True))
    for m, values, whole in zip(network.spec.maps, encoder.encode(tile, core), stored_maps(network, tile), strict=True):  # pyright: ignore[reportArgumentType]
        cells = tuple(slice(round(c.start / m.stride), round(c.stop / m.stride)) for c in core)
        assert np.abs(values - whole[(slice(None), *cells)]).max() <= declared * np.abs(whole).max()
    a = fb.extract(CELL, network, tmp_path / "a.features.ome.zarr")
    b = fb.extract(CELL, encoder, tmp_path / "b.features.ome.zarr")
    points = np.array([(0, 0, y, x) for y in range(0, 160, 13) for x in range(0, 160, 11)])
    found, expected = b.at(points), a.at(points)
    assert np.abs(found - expected).max() <= 2e-3 * np.abs(expected).max()


def test_stores_and_forests_are_interchangeable(cyto3: tuple[Path, Encoder], tmp_path: Path) -> None:
    path, network = cyto3
    encoder = fb.open_encoder(path)
    labels = np.zeros(CELL.shape, np.uint8)
    labels[5:15, 5:60], labels[100:110, 50:105] = 1, 2
    by_package = fb.extract(CELL, encoder, tmp_path / "a.features.ome.zarr")
    forest = fb.train([(by_package, labels)], n_trees=10, engine="sklearn")
    of_network = fb.predict(CELL, forest, encoder=network)
    for source in (by_package, CELL):
        found = fb.predict(source, forest, encoder=encoder) if source is CELL else fb.predict(source, forest)
        assert (np.abs(found - of_network) > 0.05).mean() < 0.01
    again = encoder_from_spec(forest.spec, weights=path)
    np.testing.assert_array_equal(fb.features(CELL, again), fb.features(CELL, encoder))


def test_command_line_without_the_weights(
    cyto3: tuple[Path, Encoder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has the package alone extracts, trains and predicts; without it the missing weights are named."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("FORESTBRIDGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("FORESTBRIDGE_OFFLINE", "1")
    Path("cyto3.zip").write_bytes(cyto3[0].read_bytes())
    tifffile.imwrite("a.tif", CELL)
    labels = np.zeros(CELL.shape, np.uint8)
    labels[5:15, 5:60], labels[100:110, 50:105] = 1, 2
    tifffile.imwrite("a_labels.tif", labels)
    for arguments in (
        ("extract", "a.tif", "-o", "a.features.ome.zarr", "--encoder", "cyto3.zip"),
        ("train", "a.features.ome.zarr", "--labels", "a_labels.tif", "--n-trees", "5", "-o", "a.forest"),
        ("train", "a.tif", "--labels", "a_labels.tif", "--n-trees", "5", "--encoder", "cyto3.zip", "-o", "i.forest"),
        ("predict", "a.tif", "--forest", "a.forest", "--weights", "cyto3.zip", "-o", "i.npy"),
        ("predict", "a.features.ome.zarr", "--forest", "a.forest", "-o", "s.npy"),
    ):
        ended = call(*arguments)
        assert ended.code == 0, ended.err
    assert fb.load_forest("i.forest").spec == cyto3[1].spec
    np.testing.assert_allclose(np.load("i.npy"), np.load("s.npy"), atol=1e-6)
    ended = call("predict", "a.tif", "--forest", "a.forest", "-o", "x.npy")
    assert ended.code != 0 and "cellpose_cyto3" in ended.err
    with pytest.raises(ResourceError, match="cellpose_cyto3"):
        encoder_from_spec(cyto3[1].spec)
    fb.train([(CELL, labels)], encoder=fb.open_encoder("filters"), n_trees=2).save("f.forest")
    ended = call("predict", "a.tif", "--forest", "f.forest", "--weights", "cyto3.zip", "-o", "x.npy")
    assert (
        ended.code == 2
        and "expected --weights with a forest over a deep encoder only, found one over filters" in ended.err
    )


def test_combination(cyto3: tuple[Path, Encoder]) -> None:
    path, network = cyto3
    both = fb.open_encoder(f"filters+{path}", images=[CELL])
    assert both.spec.parts[1] == network.spec
    again = encoder_from_spec(both.spec, weights=path)
    np.testing.assert_array_equal(fb.features(CELL, again), fb.features(CELL, both))


def test_other_settings_are_refused(cyto3: tuple[Path, Encoder]) -> None:
    path, network = cyto3
    with pytest.raises(
        ValueError, match=r"tile 224 and intensities \[0.0\] to \[255.0\], found tile 512; leave them out"
    ):
        fb.open_encoder(path, tile=512)
    with pytest.raises(ValueError, match=r"found intensities \[0\] to \[100\]; leave them out, or write the package"):
        fb.open_encoder(path, low=[0], high=[100])
    assert fb.open_encoder(path, low=[0], high=[255], tile=224).spec == network.spec
    other = fb.open_encoder("cellpose_cyto3:s4", weights=cyto3_file(), low=[0], high=[255]).spec
    with pytest.raises(
        SpecMismatchError, match=r"the package .*cyto3.zip has those of cellpose_cyto3 .*; give the package that"
    ):
        encoder_from_spec(other, weights=path)


def test_spec_that_is_not_of_the_package(tmp_path: Path) -> None:
    def claim(rdf: dict) -> None:
        rdf["config"]["forestbridge"] |= {"kind": "encoder", "spec": small_network().spec.to_json()}

    with pytest.raises(
        PackageError, match=r"expected under config.forestbridge the spec of the encoder in the package, found"
    ):
        fb.open_encoder(build(tmp_path / "a.zip", claim))
