"""Stores in FeatureForest's layout: read by FeatureForest's own rules, and by ours."""

from dataclasses import replace

import h5py
import numpy as np
import pytest

import forestbridge as fb
from command_line import call
from featureforest_files import featureforest, has_featureforest, noise_store
from forestbridge.errors import OutputExistsError, ResourceError, StoreError
from forestbridge.extract import extract
from forestbridge.image import Image
from forestbridge.stores import FeatureStore, open_store, plan_featureforest, write_featureforest
from forestbridge.stores.featureforest_writer import patch_size
from small_encoders import local_encoder, noise_image, pooling_encoder

needs_featureforest = pytest.mark.skipif(
    not has_featureforest(),
    reason="featureforest==0.1.2 (without dependencies) or pims is not installed: see scripts/test",
)


def store_of(tmp_path, image: Image, encoder) -> FeatureStore:
    return open_store(extract(image, encoder, tmp_path / "a.features.ome.zarr").path)


def every_pixel(store: FeatureStore, t: int, z: int) -> np.ndarray:
    """Return (Y, X, F) features of a plane."""
    shape = store.image.sizes["Y"], store.image.sizes["X"]
    y, x = (part.ravel() for part in np.indices(shape))
    points = np.stack([np.full_like(y, t), np.full_like(y, z), y, x], axis=1)
    return store.at(points).reshape(*shape, -1)


@pytest.mark.parametrize(
    "axes, shape, encoder", [("YX", (70, 50), pooling_encoder()), ("ZYX", (3, 40, 80), local_encoder())]
)
def test_what_is_written_is_read(tmp_path, axes, shape, encoder):
    store = store_of(tmp_path, noise_image(axes, shape), encoder)
    told = []
    write_featureforest(store, tmp_path / "a.hdf5", progress=lambda done, total: told.append((done, total)))
    found = open_store(tmp_path / "a.hdf5")
    assert found.done and found.image.axes == axes and found.image.shape == shape
    assert found.spec.options == {"model": encoder.spec.name, "patch_size": 32, "overlap": 8, "no_patching": False}
    for z in range(store.image.sizes["Z"]):
        np.testing.assert_array_equal(every_pixel(found, 0, z), every_pixel(store, 0, z).astype(np.float16))
    assert told[-1][0] == told[-1][1] == len(told)
    with pytest.raises(OutputExistsError):
        write_featureforest(store, tmp_path / "a.hdf5")


@needs_featureforest
@pytest.mark.parametrize("shape", [(48, 72), (33, 130), (64, 64)])
def test_featureforest_finds_every_pixel(tmp_path, shape):
    """By its functions for patch sizes, numbers and indices; (48, 72) is a multiple of the stride, where it has more patches."""
    data = featureforest("utils.data")
    store = store_of(tmp_path, noise_image("YX", shape), local_encoder())
    write_featureforest(store, tmp_path / "a.hdf5")
    expected = every_pixel(store, 0, 0).astype(np.float16)
    with h5py.File(tmp_path / "a.hdf5") as file:
        size, overlap = int(file.attrs["patch_size"]), int(file.attrs["overlap"])
        patches = file["0/features"][:]
        assert file["0/features"].chunks == (1, *patches.shape[1:]) and file["0/features"].compression == "lzf"
    assert size == data.get_patch_size(*shape)
    rows, columns = data.get_num_patches(*shape, size, overlap)
    side, _ = data.get_stride_margin(size, overlap)
    assert patches.shape == (rows * columns, side, side, 3)
    whole = patches.reshape(rows, columns, side, side, 3).swapaxes(1, 2).reshape(rows * side, columns * side, 3)
    np.testing.assert_array_equal(whole[: shape[0], : shape[1]], expected)
    points = np.random.default_rng(0).integers(0, shape, (50, 2))
    at = data.get_patch_indices(points, *shape, size, overlap)
    np.testing.assert_array_equal(patches[at, points[:, 0] % side, points[:, 1] % side], expected[tuple(points.T)])


@needs_featureforest
def test_patch_sizes_are_featureforests():
    data = featureforest("utils.data")
    for shorter in [*range(1, 70), 127, 128, 511, 512, 767, 1023, 1024, 1025, 5000]:
        assert patch_size(shorter, 6000) == patch_size(6000, shorter) == data.get_patch_size(shorter, 6000)


def test_models_are_those_of_featureforest_where_the_features_are(tmp_path, caplog):
    encoder = pooling_encoder(fine=384, coarse=384)
    named = replace(encoder, spec=replace(encoder.spec, name="sam2_base"))
    store = store_of(tmp_path, noise_image("YX", (40, 40)), named)
    assert plan_featureforest(store).model == "SAM2_Base"
    write_featureforest(store, tmp_path / "a.hdf5")
    assert "opens stores of its own encoders only" not in caplog.text
    other = replace(pooling_encoder(), spec=replace(pooling_encoder().spec, name="sam2_base"))
    (tmp_path / "b").mkdir()
    store = store_of(tmp_path / "b", noise_image("YX", (40, 40)), other)
    assert plan_featureforest(store).model == "sam2_base"
    write_featureforest(store, tmp_path / "b.hdf5")
    assert "opens stores of its own encoders only; " in caplog.text


def test_a_store_of_featureforest_stays_what_it_is(tmp_path):
    features = noise_store(tmp_path / "a.hdf5", slices=2)
    store = open_store(tmp_path / "a.hdf5")
    write_featureforest(store, tmp_path / "b.hdf5")
    found = open_store(tmp_path / "b.hdf5")
    assert found.spec == store.spec
    np.testing.assert_array_equal(every_pixel(found, 0, 1), features[1])


def test_series_become_slices(tmp_path):
    store = store_of(tmp_path, noise_image("TYX", (2, 33, 40)), local_encoder())
    write_featureforest(store, tmp_path / "a.hdf5")
    found = open_store(tmp_path / "a.hdf5")
    np.testing.assert_array_equal(every_pixel(found, 0, 1), every_pixel(store, 1, 0).astype(np.float16))
    (tmp_path / "b").mkdir()
    both = store_of(tmp_path / "b", noise_image("TZYX", (2, 2, 33, 40)), local_encoder())
    with pytest.raises(StoreError, match="expected a plane, a stack or a series for FeatureForest, found T=2 and Z=2"):
        write_featureforest(both, tmp_path / "b.hdf5")


def test_what_cannot_be_written_leaves_nothing(tmp_path, monkeypatch):
    image = fb.as_image(np.random.default_rng(0).integers(0, 60000, (40, 40)).astype(np.uint16))
    store = store_of(tmp_path, image, local_encoder())
    with pytest.raises(
        StoreError,
        match=r"features that FeatureForest's float16 can hold \(up to 65504\), found \d+ larger .* of 'local 1'",
    ):
        write_featureforest(store, tmp_path / "a.hdf5")
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(ResourceError, match=r"expected room for .* MiB at .*, found 0 MiB free"):
        write_featureforest(store, tmp_path / "a.hdf5")
    assert [p.name for p in tmp_path.iterdir()] == ["a.features.ome.zarr"]


def test_on_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    store_of(tmp_path, noise_image("YX", (40, 50)), local_encoder())
    line = ["export", "a.features.ome.zarr", "-o", "a.hdf5", "--format", "featureforest"]
    assert call(*line, "--dry-run").out.startswith("would write a.hdf5: 0.0 MiB before compression")
    assert call(*line, "--dry-run", "--json").json()["slices_and_patches"] == [1, 6, 24, 24, 3]
    assert not (tmp_path / "a.hdf5").exists()
    ended = call(*line)
    assert (ended.code, ended.out) == (0, "a.hdf5\n")
    assert "opens stores of its own encoders only" in ended.err
    assert fb.open_store("a.hdf5").done
    for bad, message in (
        (["-o", "b.h5"], "expected -o NAME.hdf5"),
        (["-o", "b.hdf5", "--features", "0"], "expected --format featureforest without --features"),
    ):
        ended = call("export", "a.features.ome.zarr", *bad, "--format", "featureforest")
        assert ended.code == 2 and message in ended.err
