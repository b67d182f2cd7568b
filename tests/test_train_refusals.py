"""Labels, images and settings that cannot train a forest are refused; odd ones that can, do."""

from pathlib import Path

import numpy as np
import pytest

from forestbridge.errors import ImageError, LabelError, SpecMismatchError
from forestbridge.extract import extract
from forestbridge.image import Image
from forestbridge.labels import as_scribbles
from forestbridge.predict import predict
from forestbridge.train import train
from small_line import CELLS, SELECTION, STACK, noise, same_trees, small_encoder, two_halves

ENCODER = small_encoder()


def test_encoders_that_differ(tmp_path: Path) -> None:
    others = small_encoder(selection={**SELECTION, "GaussianSmoothing": [0.7]})
    stores = [extract(CELLS.image, e, tmp_path / f"{n}.features.ome.zarr") for n, e in enumerate((ENCODER, others))]
    message = (
        r"the first image expects the features of filters \[\w{8}\], .*1\.features\.ome\.zarr has those of filters "
        r"\[\w{8}\] \(maps: .* against .*; options selection GaussianSmoothing: \[.*\] against \[0.7\]\); extract all of "
        r"them with the same encoder"
    )
    with pytest.raises(SpecMismatchError, match=message):
        train([(store, CELLS.scribbles) for store in stores])
    with pytest.raises(SpecMismatchError, match=r"the encoder for array has those of filters"):
        train([(stores[0], CELLS.scribbles), (CELLS.image, CELLS.scribbles)], encoder=others)


BAD_LABELS = {
    "shape": (np.ones((96, 111), int), r"expected labels of the size of array, Y=96 X=112, found Y=96 X=111"),
    "transposed": (CELLS.scribbles.T, r"they fit with other axes: read them with axes='XY'"),
    "volume": (CELLS.scribbles[None].repeat(3, 0), r"expected labels of the size of array, Y=96 X=112, found Q=3 Y=96"),
    "nothing": (np.zeros((96, 112), int), r"expected painted pixels, found nothing labelled"),
    "one class": (
        np.where(CELLS.scribbles == 2, 2, 0),
        r"expected at least two classes, found only 'class 2' \(value 2\); add a second class",
    ),
    "instances": (np.arange(96 * 112).reshape(96, 112) % 400, r"this looks like an instance mask"),
    "ignore": (np.where(CELLS.scribbles == 3, 255, CELLS.scribbles), r"found also 255 on \d+ pixels.*ignore=255"),
    "negative": (
        np.where(CELLS.scribbles == 3, -1, 1),
        r"expected labels ≥ 0, found the negative values \[-1\] on \d+ pixels",
    ),
    "halves": (np.where(CELLS.scribbles == 3, 0.5, 1), r"expected whole numbers.*0\.5"),
}


@pytest.mark.parametrize("case", BAD_LABELS)
def test_labels_that_cannot_train(case: str) -> None:
    labels, message = BAD_LABELS[case]
    with pytest.raises(LabelError, match=message):
        train([(CELLS.image, labels)], encoder=ENCODER)


def test_flat_labels_of_a_stack_need_their_plane(tmp_path: Path) -> None:
    labels = STACK.scribbles[9]
    with pytest.raises(LabelError, match=r"on which plane of array \(Z=18 Y=70 X=74\).*give the Z index with --slice"):
        train([(STACK.image, labels)], encoder=ENCODER)
    store = extract(STACK.image[:, :3], ENCODER, tmp_path / "a.features.ome.zarr")
    with pytest.raises(LabelError, match=r"on which plane of array \(Z=3 Y=70 X=74\).*give the Z index with --slice"):
        train([(store, labels)])
    assert train([(store, as_scribbles(labels, plane=1))], n_trees=2).n_trees == 2


def test_wrong_use() -> None:
    pair = (CELLS.image, CELLS.scribbles)
    with pytest.raises(ValueError, match=r"expected one of the presets default, featureforest, ilastik, found 'best'"):
        train([pair], encoder=ENCODER, preset="best")
    with pytest.raises(ValueError, match=r"expected at least one pair of image or store and scribbles, found none"):
        train([])
    with pytest.raises(ValueError, match=r"expected an encoder for images without a store, found none; give train"):
        train([pair])
    with pytest.raises(ValueError, match=r"expected at least 1 tree and a depth of at least 0, found 0 and 10"):
        train([pair], encoder=ENCODER, n_trees=0)
    with pytest.raises(ValueError, match=r"expected at least 1 tree and a depth of at least 0, found 100 and -1"):
        train([pair], encoder=ENCODER, max_depth=-1)
    with pytest.raises(TypeError, match=r"found the path 'a\.tif'; open it with read_image or open_store"):
        train([("a.tif", CELLS.scribbles)], encoder=ENCODER)  # pyright: ignore[reportArgumentType]


def test_images_that_do_not_fit_the_encoder() -> None:
    labels = two_halves()
    image = noise("CYX", (4, 20, 20))
    message = (
        r"noise\.tif: expected 3 channel\(s\) for the encoder filters \[\w+\], found 4; choose them with --channels"
    )
    with pytest.raises(ImageError, match=message):
        train([(image, labels)], encoder=small_encoder(channels=3))
    assert (
        train([(image.select_channels([0, 2, 3]), labels)], encoder=small_encoder(channels=3), n_trees=2).n_trees == 2
    )
    with pytest.raises(ImageError, match=r"expected at least 3 planes for 3D filters, found 2"):
        train([(noise("ZYX", (2, 20, 20)), labels[None].repeat(2, 0))], encoder=small_encoder(volume=True))


def test_bad_pixels_are_refused_where_training_looks() -> None:
    pixels = np.random.default_rng(0).random((600, 30))
    pixels[590, 3] = np.nan
    labels = np.zeros((600, 30), int)
    labels[:20, :20] = two_halves()
    image = Image(pixels, "YX", pixel_size={}, source="holes.tif")
    assert train([(image, labels)], encoder=ENCODER, n_trees=2).n_trees == 2  # in a tile that is not asked for
    labels[585, 5] = 2
    with pytest.raises(ImageError, match=r"holes\.tif: expected finite pixels, found 1 NaN.* y=590 x=3; .*--nan VALUE"):
        train([(image, labels)], encoder=ENCODER)
    filled = Image(pixels, "YX", pixel_size={}, nan=0.0)
    assert train([(filled, labels)], encoder=ENCODER, n_trees=2).n_trees == 2


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((20, 20), 7, np.uint8),
        np.zeros((20, 20), bool),
        np.random.default_rng(0).random((20, 20)).astype(">f8")[::-1],
    ],
    ids=["constant", "bool", "views"],
)
def test_odd_images_train_and_predict(pixels: np.ndarray) -> None:
    forest = train([(pixels, two_halves())], encoder=ENCODER, n_trees=5)
    probabilities = predict(pixels, forest)
    assert np.isfinite(probabilities).all()
    np.testing.assert_allclose(probabilities.sum(axis=0), 1, atol=1e-6)


def test_no_contrast_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    images = [np.full((20, 20), 7, np.uint8), np.full((20, 20), 7, np.uint8)]
    forest = train([(image, two_halves()) for image in images], encoder=ENCODER, n_trees=2)
    [note] = forest.training["warnings"]
    assert note == (
        "array: all labelled pixels have the same features, so that no class can be told from another: the image has no "
        "contrast there; check that it is the right one"
    )
    assert note in caplog.messages
    images[1][0, 0] = 8
    forest = train([(image, two_halves()) for image in images], encoder=ENCODER, n_trees=2)
    assert forest.training["warnings"] == []


def test_images_smaller_than_the_kernels() -> None:
    encoder = small_encoder(selection={"GaussianSmoothing": [10.0], "StructureTensorEigenvalues": [10.0]})
    images = [np.array([[value]], np.uint16) for value in (3, 900)] + [noise("YX", (5, 3))]
    labels = [np.array([[1]]), np.array([[2]]), np.array([[1, 2, 0]] * 5)]
    forest = train(list(zip(images, labels, strict=True)), encoder=encoder, n_trees=5)
    assert len(forest.training["warnings"]) == 0
    assert predict(images[0], forest).shape == (2, 1, 1)
    assert predict(images[2], forest).shape == (2, 5, 3)


def test_the_filter_bank_takes_raw_values() -> None:
    """Nothing is normalised: a copy scaled to 0..1 is another image for the forest."""
    forest = train([(CELLS.image, CELLS.scribbles)], encoder=ENCODER, n_trees=10)
    assert forest.spec is not None
    assert forest.spec.intensity == {"rule": "raw"}
    scaled = (CELLS.image / 65535).astype(np.float32)
    same = train([(CELLS.image.astype(np.float32), CELLS.scribbles)], encoder=ENCODER, n_trees=10)
    assert same_trees(forest, same)
    assert (predict(scaled, forest, kind="labels") == CELLS.truth).mean() < 0.7
