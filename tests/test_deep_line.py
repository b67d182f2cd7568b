"""The line with deep encoders: image, store, single pixels and forest see the same features; combinations; intensities."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from skimage import data

import forestbridge as fb
from forestbridge.encoders import encoder_from_spec, features
from forestbridge.encoders.base import BatchEncoder
from forestbridge.encoders.combined import CombinedEncoder
from forestbridge.encoders.features import features_at
from forestbridge.encoders.intensity import measure_intensity
from forestbridge.errors import ImageError
from forestbridge.image import Image, as_image
from forestbridge.phantom import phantom
from forestbridge.threads import ahead
from forestbridge.train import balanced_columns
from small_encoders import local_encoder, pooling_encoder

pytest.importorskip("torch", reason="the extra 'torch' is not installed")

from deep_weights import cyto3_file


@pytest.fixture(scope="module")
def cell() -> Image:
    """A cell by phase contrast, 120 × 110 bytes: four tiles of 96."""
    return as_image(data.cell()[240:360, 260:370])


def open_cyto3(image: Image, name: str = "cellpose_cyto3", **options: object) -> BatchEncoder:
    encoder = fb.open_encoder(name, images=[image], weights=cyto3_file(), tile=224, **options)
    assert isinstance(encoder, BatchEncoder)
    return encoder


POINTS = np.array([(0, 0, y, x) for y, x in [(0, 0), (119, 109), (95, 95), (96, 96), (95, 100), (17, 93), (118, 3)]])


@pytest.mark.parametrize("name", ["cellpose_cyto3", "cellpose_cyto3:s8,s2", "filters+cellpose_cyto3:s4,s8"])
def test_image_pixels_and_store_agree(name: str, cell: Image, tmp_path: Path) -> None:
    """The same features whether a plane is computed, single pixels of it, or a store is asked: beside and between tiles."""
    encoder = open_cyto3(cell, name)
    plane = features(cell, encoder)
    store = fb.extract(cell, encoder, tmp_path / "a.features.ome.zarr")
    assert plane.shape == (encoder.spec.n_features, 120, 110)
    for found in (features_at(cell, encoder, POINTS), store.at(POINTS)):
        expected = plane[:, POINTS[:, 2], POINTS[:, 3]].T
        assert np.abs(found - expected).max() <= 2e-6 * np.abs(plane).max()
    assert np.array_equal(features_at(cell, encoder, POINTS), store.at(POINTS))


def test_scribbles_to_labels(cell: Image, tmp_path: Path) -> None:
    """Trained on the image or on its store the forest is the same; it labels both alike."""
    encoder = open_cyto3(cell)
    labels = np.zeros((120, 110), np.uint8)
    labels[5:15, 5:60], labels[100:110, 50:105] = 1, 2
    store = fb.extract(cell, encoder, tmp_path / "a.features.ome.zarr")
    from_store = fb.train([(store, labels)], n_trees=10)
    from_image = fb.train([(cell, labels)], encoder=encoder, n_trees=10)
    assert np.array_equal(from_store.threshold, from_image.threshold)
    by_image, by_store = (fb.predict(source, from_store, kind="labels") for source in (cell, store))
    assert np.array_equal(by_image, by_store)
    assert (by_image[labels > 0] == labels[labels > 0]).mean() > 0.99


def test_stack(tmp_path: Path) -> None:
    """A stack goes plane by plane."""
    stack = as_image(phantom((3, 60, 70), classes=2).image)
    encoder = open_cyto3(stack, "cellpose_cyto3:s4+filters")
    store = fb.extract(stack, encoder, tmp_path / "a.features.ome.zarr")
    points = np.array([(0, 0, 5, 60), (0, 2, 59, 69), (0, 1, 30, 31)])
    assert np.array_equal(features_at(stack, encoder, points), store.at(points))
    found = features(stack, encoder)[:, points[:, 1], points[:, 2], points[:, 3]].T
    assert np.abs(found - store.at(points)).max() <= 2e-6 * np.abs(found).max()


class TestCombination:
    def test_has_the_values_of_its_parts(self, cell: Image) -> None:
        deep, bank = open_cyto3(cell), fb.open_encoder("filters")
        both = CombinedEncoder([bank, deep])
        found = features(cell, both)
        assert np.array_equal(found[: bank.spec.n_features], features(cell, bank))
        assert np.array_equal(found[bank.spec.n_features :], features(cell, deep))

    def test_cuts_tiles_into_those_of_its_parts(self, cell: Image) -> None:
        coarse, fine = open_cyto3(cell), pooling_encoder()  # cores of 96 and of 64: 192
        both = CombinedEncoder([coarse, fine])
        assert both.spec.tile == (192, 192)
        n = coarse.spec.n_features
        assert np.array_equal(features(cell, both)[:n], features(cell, coarse))
        assert np.array_equal(features(cell, both)[n:], features(cell, fine))

    def test_spec(self, cell: Image) -> None:
        spec = open_cyto3(cell, "filters+cellpose_cyto3:s8").spec
        assert spec.name == "filters+cellpose_cyto3"
        assert [(m.name, m.stride) for m in spec.maps][1:] == [("cellpose_cyto3.s8", 8)]
        assert spec.dtypes == ("float32", "float16")
        assert spec.feature_names[-1] == "cellpose_cyto3.s8.255"
        assert encoder_from_spec(spec).spec == type(spec).from_json(spec.to_json()) == spec

    def test_parts_that_do_not_go_together(self, cell: Image) -> None:
        with pytest.raises(ValueError, match=r"expected two or more different encoders .*, found filters.filters"):
            fb.open_encoder("filters+filters")
        with pytest.raises(ValueError, match="expected encoders that see the same pixels, found local on zyx with 1"):
            CombinedEncoder([local_encoder(axes="zyx", tile=None), pooling_encoder()])
        with pytest.raises(ValueError, match="expected encoders that see the same pixels, found local on yx with 3"):
            CombinedEncoder([local_encoder(channels=3), pooling_encoder()])
        with pytest.raises(ValueError, match="expected tiles whose cores have a common multiple of at most 1536"):
            CombinedEncoder([local_encoder(tile=(378, 378)), pooling_encoder()])
        with pytest.raises(ValueError, match=r"expected one of the encoders .*, found 'nothing'"):
            fb.open_encoder("filters+nothing", images=[cell])

    def test_forest_sees_both(self, cell: Image) -> None:
        """Half of what is offered to the trees are filters, and an eighth each map of a network, however many channels it has."""
        encoder = open_cyto3(cell, "filters+cellpose_cyto3")
        filters, network = encoder.spec.parts
        counts = np.bincount(balanced_columns(encoder.spec))
        assert counts.tolist() == [21] * 49 + [8] * 32 + [4] * 64 + [2] * 128 + [1] * 256
        assert np.array_equal(np.bincount(balanced_columns(network)), counts[49:])
        assert np.array_equal(balanced_columns(network, maps=False), np.arange(480))
        assert np.bincount(balanced_columns(encoder.spec, maps=False)).tolist() == [10] * 49 + [1] * 480
        assert np.array_equal(balanced_columns(filters), np.arange(49))
        labels = np.zeros((120, 110), np.uint8)
        labels[5:15, 5:60], labels[100:110, 50:105] = 1, 2
        forest = fb.train([(cell, labels)], encoder=encoder, n_trees=20, engine="sklearn")
        assert forest.n_features == 529 > forest.feature.max()
        assert sum(value for _, value in forest.training["importance"]) <= 1.00001


class TestIntensity:
    def test_percentiles_over_all_images(self) -> None:
        dark, bright = (np.full((1, 100, 100), value, np.uint16) for value in (100, 4000))
        found = measure_intensity([dark, bright])
        assert found == (1, [100], [4000])
        assert measure_intensity(dark) == (1, [100], [101])

    def test_hot_pixels_are_clipped(self) -> None:
        pixels = np.random.default_rng(0).integers(0, 1000, (1, 500, 500)).astype(np.uint16)
        pixels[0, 3, 3] = 65535
        [high] = measure_intensity(pixels).high
        assert 990 <= high <= 1000

    def test_colours_keep_their_range(self) -> None:
        assert measure_intensity(np.zeros((3, 9, 9), np.uint8)) == (3, [0, 0, 0], [255, 255, 255])
        found = measure_intensity(np.stack([np.full((9, 9), v, np.uint16) for v in (1, 2, 3)]))
        assert found == (3, [1, 2, 3], [2, 3, 4])

    def test_large_images_and_stacks_are_sampled(self) -> None:
        plane = np.arange(3000, dtype=np.float32)[None, :] + np.zeros((2000, 1), np.float32)
        found = measure_intensity(as_image(np.stack([plane] * 40), axes="ZYX"))
        assert abs(found.low[0] - 3) < 10
        assert abs(found.high[0] - 2996) < 10

    def test_images_that_are_not_alike(self) -> None:
        with pytest.raises(ImageError, match=r"expected 1 channel.* as in .*, found 2; choose them with --channels"):
            measure_intensity([np.zeros((1, 9, 9)), np.zeros((2, 9, 9))])
        with pytest.raises(ImageError, match="expected at least one image"):
            measure_intensity([])

    def test_deep_encoders_ask_for_it(self) -> None:
        with pytest.raises(
            ValueError,
            match=r"expected the intensities that become 0 and 1 for cellpose_cyto3, found none; give images",
        ):
            fb.open_encoder("cellpose_cyto3", weights=cyto3_file())


def test_ahead_yields_in_order_and_closes() -> None:
    closed = []

    def items() -> Iterator[int]:
        try:
            yield from range(5)
        finally:
            closed.append(True)

    assert list(ahead(items())) == [0, 1, 2, 3, 4]  # type: ignore[arg-type]
    iterator = ahead(items())  # type: ignore[arg-type]
    assert next(iterator) == 0
    iterator.close()
    assert closed == [True, True]


def test_ahead_passes_errors_on() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("no")

    iterator = ahead(items())  # type: ignore[arg-type]
    assert next(iterator) == 1
    with pytest.raises(KeyError):
        next(iterator)
