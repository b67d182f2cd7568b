"""Stacks and time series through the whole line: features along z, three axes in the package, OME-Zarr in and out."""

from pathlib import Path

import numpy as np
import pytest

from forestbridge.archive import inspect_package
from forestbridge.encoders.features import features
from forestbridge.errors import ImageError, LabelError
from forestbridge.extract import extract
from forestbridge.forest import PixelForest, load_forest
from forestbridge.image import as_image, read_image
from forestbridge.labels import as_scribbles, read_scribbles
from forestbridge.package import write_package
from forestbridge.package.reference import run_in_core
from forestbridge.phantom import phantom
from forestbridge.predict import predict
from forestbridge.runner import Package, open_package
from forestbridge.train import train
from image_files import TCZYX, write_zarr
from results import whole
from small_line import STACK, inside, noise, small_encoder, small_forest

ONE_TREE = 0.1 + 1e-6
"""What one of ten trees changes when a feature lies within float32 rounding of its threshold."""


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Package:
    """3D filters, ONNX and TorchScript; both were run and compared when it was written."""
    path = tmp_path_factory.mktemp("stack") / "stack.zip"
    report = write_package(path, small_forest("stack"), image=STACK.image)
    assert report.good
    assert {(f.weights, f.status) for f in report.formats} == {("onnx", "passed"), ("torchscript", "passed")}
    return open_package(path, threads=2)


def compare(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    difference = np.abs(found - expected).max()
    flips = int((found.argmax(axis=-4) != expected.argmax(axis=-4)).sum())
    print(f"{found.shape}: largest difference {difference:.1e}, {flips} labels differ")
    assert difference <= ONE_TREE
    assert flips <= 1e-4 * found[..., 0, :, :, :].size


def test_scribbles_in_three_planes_find_the_volume_again(tmp_path: Path) -> None:
    image = as_image(STACK.image)
    scribbles = as_scribbles(STACK.scribbles)
    assert scribbles.planes == [(0, 4), (0, 9), (0, 13)]
    encoder = small_encoder(volume=True)
    store = extract(image, encoder, tmp_path / "stack.features.ome.zarr")
    assert store.at(scribbles.points).shape == (len(scribbles.values), encoder.spec.n_features)
    forest = train([(store, scribbles)], n_trees=10, engine="sklearn")
    assert forest.training["warnings"] == []
    forest.save(tmp_path / "a.forest")
    small_forest("stack").save(tmp_path / "b.forest")
    assert load_forest(tmp_path / "a.forest").training["pixels"] == small_forest("stack").training["pixels"]
    probabilities = predict(store, forest)
    np.testing.assert_array_equal(probabilities, predict(image, small_forest("stack")))
    assert (probabilities.argmax(axis=0) + 1 == STACK.truth).mean() > 0.9


def test_one_plane_of_labels_in_a_stack() -> None:
    flat = as_scribbles(STACK.scribbles[9], plane=9)
    volume = np.where(np.arange(18)[:, None, None] == 9, STACK.scribbles, 0)
    encoder = small_encoder(volume=True)
    forests = [train([(STACK.image, labels)], encoder=encoder, n_trees=3) for labels in (flat, volume)]
    np.testing.assert_array_equal(forests[0].threshold, forests[1].threshold)
    assert [len(f.training["warnings"]) for f in forests] == [1, 1]
    with pytest.raises(LabelError, match=r"expected a plane with Z from 0 to 17 of array, found Z=18"):
        train([(STACK.image, as_scribbles(STACK.scribbles[9], plane=18))], encoder=encoder)


def test_package_has_three_axes(package: Package) -> None:
    info = inspect_package(package.info.path)
    assert [a.id for a in info.inputs[0].axes][2:] == ["z", "y", "x"]
    assert [(a.min, a.step) for a in info.inputs[0].axes[2:]] == [(16, 16), (64, 16), (64, 16)]
    assert [a.halo for a in info.outputs[0].axes[2:]] == [6, 6, 6]
    assert info.spec == small_forest("stack").spec
    assert [w.format for w in info.weights] == ["onnx", "torchscript"]


@pytest.mark.parametrize("shape", [(16, 64, 64), (18, 70, 74), (33, 65, 100), (97, 66, 64), (9, 20, 110), (7, 7, 7)])
def test_package_answers_as_the_forest(package: Package, shape: tuple[int, int, int]) -> None:
    volume = phantom(shape, seed=2).image if min(shape) >= 16 else noise("CZYX", (1, *shape)).data[:]  # pyright: ignore[reportArgumentType]
    compare(package.predict(volume), predict(volume, small_forest("stack")))


def test_package_in_small_windows(package: Package) -> None:
    volume = phantom((40, 90, 100), seed=4).image
    expected = package.predict(volume)
    for tile in (1, 64, 80):
        np.testing.assert_allclose(package.predict(volume, tile=tile), expected, atol=1e-6)


def test_too_few_planes(package: Package, tmp_path: Path) -> None:
    """Three planes are fewer than the halo: the package continues them by reflection."""
    thin = noise("ZYX", (3, 70, 74))
    assert package.predict(thin).shape == predict(thin, small_forest("stack")).shape == (3, 3, 70, 74)
    for image in (noise("ZYX", (2, 70, 74)), noise("YX", (70, 74))):
        with pytest.raises(ImageError, match=rf"expected at least 3 planes for 3D filters, found {image.sizes['Z']}"):
            package.predict(image, out=tmp_path / "a.npy")
        with pytest.raises(ImageError, match=rf"expected at least 3 planes for 3D filters, found {image.sizes['Z']}"):
            predict(image, small_forest("stack"), out=tmp_path / "a.npy")
        with pytest.raises(ImageError, match=rf"expected at least 3 planes for 3D filters, found {image.sizes['Z']}"):
            extract(image, small_encoder(volume=True), tmp_path / "a.features.ome.zarr")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("weights", ["onnx", "torchscript"])
def test_bioimageio_core_answers_as_the_forest(package: Package, weights: str) -> None:
    """Farther than the halo from the edge, where core continues the image in its own way."""
    volume = STACK.image[:, :, :64, :64]
    found = run_in_core(package.info.path, weights, volume[None].astype(np.float32), axes="zyx")
    compare(inside(found[0], (6, 6, 6)), inside(predict(volume, small_forest("stack")), (6, 6, 6)))


def test_series_of_stacks_in_3d(package: Package, tmp_path: Path) -> None:
    series = noise("TZYX", (2, 17, 66, 65))
    out = package.predict(series, out=tmp_path / "series.ome.zarr")
    compare(whole(out), predict(series, small_forest("stack")))
    labels = package.predict(series, kind="labels", out=tmp_path / "labels.ome.tif")
    np.testing.assert_array_equal(whole(labels), whole(out).argmax(axis=1) + 1)
    assert read_image(labels).axes == "TZYX"


def test_ome_zarr_in_and_out(tmp_path: Path) -> None:
    """A stack from another program's OME-Zarr to OME-Zarr labels, with its pixel size."""
    path = tmp_path / "stack.ome.zarr"
    write_zarr(path, STACK.image[None], "0.5", TCZYX, [1000.0, 1.0, 2000.0, 0.5, 0.25])
    image = read_image(path)
    assert image.sizes == {"T": 1, "C": 1, "Z": 18, "Y": 70, "X": 74}
    store = extract(image, small_encoder(volume=True), tmp_path / "stack.features.ome.zarr")
    forest = train([(store, STACK.scribbles)], n_trees=10, engine="sklearn")
    labels = predict(image, forest, kind="labels", out=tmp_path / "labels.ome.zarr")
    again = read_image(labels)
    assert again.pixel_size == image.pixel_size == pytest.approx({"z": 2.0, "y": 0.5, "x": 0.25})
    assert again.axes == image.axes.replace("C", "")
    np.testing.assert_array_equal(whole(labels)[0], predict(STACK.image, small_forest("stack"), kind="labels"))
    painted = read_scribbles(labels, shape=image)  # our labels are labels again
    assert painted.counts == {k: int((whole(labels) == k).sum()) for k in (1, 2, 3)}


@pytest.fixture(scope="module")
def series_forest() -> tuple[PixelForest, np.ndarray]:
    """A forest trained on a series (T, Z, C) in 2D, and its pixels (T, C, Z, Y, X)."""
    frames = [phantom((3, 64, 70), channels=2, seed=seed) for seed in (1, 2)]
    pixels = np.stack([f.image for f in frames])
    labels = np.stack([f.scribbles for f in frames])  # (T, Z, Y, X)
    encoder = small_encoder(channels=2)
    return train([(as_image(pixels, axes="TCZYX"), labels)], encoder=encoder, n_trees=10), pixels


def test_series_of_stacks_plane_by_plane(
    series_forest: tuple[PixelForest, np.ndarray], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    forest, pixels = series_forest
    mixed_axes = as_image(np.moveaxis(pixels, (0, 1, 2, 3, 4), (2, 0, 1, 4, 3)), axes="CZTXY")
    assert (mixed_axes.axes, mixed_axes.shape) == ("TCZYX", pixels.shape)
    result = predict(mixed_axes, forest)
    assert result.shape == (2, 3, 3, 64, 70)
    store = extract(mixed_axes, small_encoder(channels=2), tmp_path / "a.features.ome.zarr")
    np.testing.assert_array_equal(predict(store, forest), result)
    for t in range(2):
        for z in range(3):
            plane = features(pixels[t, :, z], small_encoder(channels=2))
            np.testing.assert_array_equal(predict(pixels[t, :, z], forest), result[t, :, z])
            np.testing.assert_array_equal(
                store.read_map("filters", t=t, z=z, spatial=(slice(0, 64), slice(0, 70))), plane
            )
    out = predict(store, forest, kind="labels", out=tmp_path / "labels.tif")
    np.testing.assert_array_equal(whole(out), result.argmax(axis=1) + 1)


def test_series_without_z(tmp_path: Path) -> None:
    frames = [phantom((64, 70), seed=seed) for seed in (1, 2, 3)]
    image = as_image(np.stack([f.image for f in frames]), axes="TYX")
    labels = np.stack([f.scribbles for f in frames])
    labels[1] = 0  # the frame in the middle is not labelled
    encoder = small_encoder()
    forest = train([(image, labels)], encoder=encoder, n_trees=10, names=frames[0].names)
    store = extract(image, encoder, tmp_path / "series.features.ome.zarr")
    again = train([(store, as_scribbles(labels, axes="TYX", names=frames[0].names))], n_trees=10)
    np.testing.assert_array_equal(forest.threshold, again.threshold)
    assert forest.training == again.training
    found = predict(image, forest, kind="labels")
    assert found.shape == (3, 64, 70)
    assert (found[2] == frames[2].truth).mean() > 0.9
    one = train([(image, as_scribbles(frames[2].scribbles, plane=2))], encoder=encoder, n_trees=3)
    assert one.training["warnings"][0].startswith("array: only one of 3 planes has labels (t=2 z=0)")
