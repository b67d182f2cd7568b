"""Forests over maps with a stride: from an image, band by band, and from a store, the same bits as on interpolated planes."""

import sys
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from forestbridge import engine
from forestbridge.encoders.base import Encoder
from forestbridge.extract import extract
from forestbridge.forest import PixelForest
from forestbridge.image import Image
from forestbridge.predict import predict
from forestbridge.spec import EncoderSpec
from forestbridge.train import train
from random_forests import random_forest
from small_encoders import local_encoder, noise_image, pooling_encoder, whole_maps
from small_line import CELLS, noise, small_encoder, small_forest


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch):
    """Let `predict` find an encoder that forestbridge does not have."""

    def make(encoder: Encoder) -> None:
        monkeypatch.setattr(sys.modules["forestbridge.predict"], "encoder_from_spec", lambda spec, **_: encoder)

    return make


@dataclass(frozen=True)
class Stacked:
    """An encoder of planes, as one of stacks that works plane by plane."""

    spec: EncoderSpec
    plane: Encoder

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return (F, z, y, x) per map."""
        planes = [self.plane.encode(tile[:, z], core[1:]) for z in range(*core[0].indices(tile.shape[1]))]
        return tuple(np.stack(maps, axis=1) for maps in zip(*planes, strict=True))


def forest_for(encoder: Encoder, image: Image) -> PixelForest:
    maps = whole_maps(image, encoder, 0, 0)  # pyright: ignore[reportArgumentType]
    features = np.concatenate([np.resize(plane, (1, 60)) for m in maps for plane in m])
    return random_forest(features.astype(np.float32), seed=1, n_trees=30, depth=7, spec=encoder.spec)


@pytest.mark.parametrize("axes", ["YX", "ZYX", "TYX"])
@pytest.mark.parametrize("size", [(40, 50), (64, 64), (130, 65), (300, 200)])
def test_image_store_and_engine_agree(axes: str, size: tuple[int, int], tmp_path: Path, known) -> None:
    """Tiles of 64 pixels and cells of 4 and 16: pixels at a tile's end lie between cells of two, three or four tiles."""
    encoder = pooling_encoder(fine=3, coarse=4)
    known(encoder)
    image = noise_image(axes, (*(2,) * (len(axes) - 2), *size))
    forest = forest_for(encoder, image)
    expected = np.stack(
        [
            engine.predict(forest, list(whole_maps(image, encoder, t, z)), shape=size)
            for t in range(image.sizes["T"])
            for z in range(image.sizes["Z"])
        ]
    )
    found = predict(image, forest)
    planes = np.moveaxis(found, 0, 1) if axes == "ZYX" else found if axes == "TYX" else found[None]
    np.testing.assert_array_equal(planes, expected)
    store = extract(image, encoder, tmp_path / "a.zarr")
    for jobs in (1, 3):
        np.testing.assert_array_equal(predict(store, forest, jobs=jobs), found)
        np.testing.assert_array_equal(predict(image, forest, jobs=jobs), found)


def test_stacks_of_maps(tmp_path: Path, known) -> None:
    flat = pooling_encoder(fine=2, coarse=2)
    spec = replace(flat.spec, axes="zyx", halo=(0, 0, 0), tile=(2, 64, 64))
    encoder = Stacked(spec, flat)
    known(encoder)
    image = noise_image("ZYX", (5, 100, 90))
    forest = replace(forest_for(flat, noise_image("YX", (100, 90))), spec=spec)
    by_plane = [
        engine.predict(replace(forest, spec=flat.spec), list(whole_maps(image, flat, 0, z)), shape=(100, 90))
        for z in range(5)
    ]
    np.testing.assert_array_equal(predict(image, forest), np.stack(by_plane, axis=1))
    np.testing.assert_array_equal(
        predict(extract(image, encoder, tmp_path / "a.zarr"), forest), np.stack(by_plane, axis=1)
    )


def test_trained_on_maps_and_predicted_from_them(tmp_path: Path, known) -> None:
    """`at` gives training the same interpolated values that the engine sees: every painted pixel ends where it was trained."""
    encoder = pooling_encoder(fine=4, coarse=4)
    known(encoder)
    store = extract(CELLS.image, encoder, tmp_path / "a.zarr")
    forest = train([(store, CELLS.scribbles)], n_trees=9, max_depth=0, preset="ilastik")
    probabilities = predict(CELLS.image, forest)
    y, x = np.nonzero(CELLS.scribbles)
    rows = store.at(np.stack([y, x], axis=1))
    np.testing.assert_array_equal(probabilities[:, y, x], engine.predict(forest, rows.T))


def test_float16_features_at_every_pixel(known) -> None:
    """A forest is trained on stored values, so prediction rounds as the store does."""
    encoder = local_encoder(features=4, tile=(32, 32))
    encoder = replace(encoder, spec=replace(encoder.spec, dtype="float16"))
    known(encoder)
    image = noise_image("YX", (70, 80))
    [features] = whole_maps(image, encoder, 0, 0)
    assert features.dtype == np.float16
    forest = random_forest(features.astype(np.float32), seed=0, n_trees=20, depth=6, spec=encoder.spec)
    np.testing.assert_array_equal(predict(image, forest), engine.predict(forest, features.astype(np.float32)))


@pytest.mark.parametrize("jobs", [1, 2, 7])
def test_jobs_change_nothing(jobs: int, tmp_path: Path) -> None:
    image = noise("ZYX", (3, 90, 600))
    expected = predict(image, small_forest(), jobs=1)
    np.testing.assert_array_equal(predict(image, small_forest(), jobs=jobs), expected)
    predict(image, small_forest(), jobs=jobs, out=tmp_path / "a.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "a.npy"), expected)
    with pytest.raises(ValueError, match=r"expected at least one thread, found 0; leave it out"):
        predict(image, small_forest(), jobs=0)


class Counted:
    """Pixels that count how many threads read them at the same time, and how many reads there were."""

    shape = (4000, 600)
    dtype = np.dtype("uint8")

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.now = self.most = self.reads = 0

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray:
        with self.lock:
            self.now += 1
            self.reads += 1
            self.most = max(self.most, self.now)
        time.sleep(0.01)
        with self.lock:
            self.now -= 1
        return np.zeros([s.indices(n)[1] - s.indices(n)[0] for s, n in zip(key, self.shape, strict=True)], np.uint8)


def test_reading_overlaps_and_is_never_far_ahead() -> None:
    """Files are read while other tiles are computed; but no more of them than the threads can hold."""
    pixels, ahead = Counted(), []
    image = Image(pixels, "YX", pixel_size={})

    def progress(done: int, total: int) -> None:
        time.sleep(0.02)  # a slow disk
        ahead.append(pixels.reads - done)

    predict(image, small_forest(), jobs=3, progress=progress)
    assert pixels.most > 1
    assert max(ahead) <= 2 * 3
    assert len(ahead) == pixels.reads == 126


def test_only_the_filters_that_the_forest_uses_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    from forestbridge.encoders.filters import FilterBank

    encoder = small_encoder()
    forest = random_forest(
        np.random.default_rng(0).normal(size=(6, 500)).astype(np.float32),
        seed=0,
        n_trees=5,
        depth=4,
        used=[0],
        spec=encoder.spec,
    )
    expected = engine.predict(
        forest, encoder.encode(CELLS.image[None].astype(np.float32), (slice(0, 96), slice(0, 112)))[0]
    )
    computed = []
    encode = FilterBank.encode

    def watched(self: FilterBank, tile, core):
        computed.append((self.filters, tile.shape))
        return encode(self, tile, core)

    monkeypatch.setattr(FilterBank, "encode", watched)
    np.testing.assert_array_equal(predict(CELLS.image, forest), expected)
    assert {tuple(f.feature for f in filters) for filters, _ in computed} == {("GaussianSmoothing",)}
    assert max(shape[1] for _, shape in computed) == 64 + 3  # the halo of this filter, and not the bank's of 7
