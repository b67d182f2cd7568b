"""What every feature store must do, as tests to inherit from.

A test class of a backend inherits `StoreContract` and gives it `make_store`: (image, encoder) -> a store that is done.
"""

from collections.abc import Callable

import numpy as np
import pytest

from forestbridge.image import Image
from forestbridge.stores import FeatureStore, ImageFacts
from small_encoders import (
    LocalEncoder,
    PoolingEncoder,
    local_encoder,
    noise_image,
    pixel_features,
    pooling_encoder,
    whole_maps,
)

MakeStore = Callable[[Image, LocalEncoder | PoolingEncoder], FeatureStore]


class StoreContract:
    """Tests of the `FeatureStore` protocol; inherited by a class with the fixture `make_store`."""

    def test_a_done_store_knows_its_encoder_and_image(self, make_store: MakeStore):
        image, encoder = noise_image("YX", (70, 50)), local_encoder()
        store = make_store(image, encoder)
        assert store.done
        assert store.missing() == []
        assert store.spec == encoder.spec
        assert store.image == ImageFacts.of(image)
        assert store.image.source == "noise.tif"
        assert store.path.exists()

    @pytest.mark.parametrize("shape", [(1, 1), (5, 40), (64, 64), (70, 50)])
    def test_at_gives_the_features_of_single_pixels(self, make_store: MakeStore, shape):
        image, encoder = noise_image("YX", shape), local_encoder()
        store = make_store(image, encoder)
        (expected,) = whole_maps(image, encoder, 0, 0)
        y, x = (part.ravel() for part in np.indices(shape))
        found = store.at(np.stack([y, x], axis=1))
        assert found.dtype == np.float32
        assert found.shape == (len(y), 3)
        np.testing.assert_array_equal(found, expected[:, y, x].T)

    def test_at_interpolates_strided_maps_and_keeps_the_order_of_features(self, make_store: MakeStore):
        image, encoder = noise_image("YX", (130, 75), seed=1), pooling_encoder()
        store = make_store(image, encoder)
        rng = np.random.default_rng(2)
        y, x = rng.integers(0, 130, 200), rng.integers(0, 75, 200)
        y[:4], x[:4] = (0, 0, 129, 129), (0, 74, 0, 74)
        found = store.at(np.stack([y, x], axis=1))
        expected = pixel_features(whole_maps(image, encoder, 0, 0), encoder.spec, y, x)
        np.testing.assert_allclose(found, expected, rtol=1e-6)
        assert store.spec.feature_names == ("fine 0", "fine 1", "coarse 0", "coarse 1", "coarse 2")

    def test_at_takes_positions_between_pixels(self, make_store: MakeStore):
        image, encoder = noise_image("YX", (40, 40)), local_encoder()
        store = make_store(image, encoder)
        found = store.at(np.array([[31.5, 10.25]]))
        expected = pixel_features(whole_maps(image, encoder, 0, 0), encoder.spec, np.array([31.5]), np.array([10.25]))
        np.testing.assert_allclose(found, expected, rtol=1e-6)

    @pytest.mark.parametrize(
        "axes, shape", [("TCZYX", (2, 2, 3, 40, 35)), ("TYX", (3, 40, 35)), ("ZYX", (3, 40, 35)), ("CYX", (2, 40, 35))]
    )
    def test_planes_of_stacks_and_channels(self, make_store: MakeStore, axes, shape):
        image = noise_image(axes, shape)
        encoder = local_encoder(channels=image.n_channels)
        store = make_store(image, encoder)
        rng = np.random.default_rng(3)
        sizes = image.sizes
        points = np.stack([rng.integers(0, sizes[a], 60) for a in "TZYX"], axis=1)
        expected = [whole_maps(image, encoder, t, z)[0][:, y, x] for t, z, y, x in points.tolist()]
        np.testing.assert_array_equal(store.at(points), expected)
        t, z = sizes["T"] - 1, sizes["Z"] - 1
        plane = store.read_map("local", t=t, z=z, spatial=(slice(3, 40), slice(0, 33)))
        np.testing.assert_array_equal(plane, whole_maps(image, encoder, t, z)[0][:, 3:40, 0:33])
        stack = store.read_map("local", t=t, spatial=(slice(0, sizes["Z"]), slice(3, 40), slice(0, 33)))
        assert stack.shape == (3, sizes["Z"], 37, 33)
        np.testing.assert_array_equal(stack[:, z], plane)

    def test_stacks_of_3d_encoders(self, make_store: MakeStore):
        image, encoder = noise_image("TZYX", (2, 9, 40, 35)), local_encoder(axes="zyx", tile=(4, 32, 16))
        store = make_store(image, encoder)
        (expected,) = whole_maps(image, encoder, 1, None)
        np.testing.assert_array_equal(
            store.read_map("local", t=1, spatial=(slice(2, 9), slice(1, 40), slice(0, 35))), expected[:, 2:9, 1:40]
        )
        np.testing.assert_array_equal(
            store.at(np.array([[1, 8, 39, 34], [1, 3, 0, 17]])), [expected[:, 8, 39, 34], expected[:, 3, 0, 17]]
        )

    def test_read_map_gives_cells_in_the_stored_dtype(self, make_store: MakeStore):
        image, encoder = noise_image("YX", (130, 75)), pooling_encoder()
        store = make_store(image, encoder)
        fine, coarse = whole_maps(image, encoder, 0, 0)
        found = store.read_map("pool.fine", spatial=(slice(0, 33), slice(0, 19)))
        assert found.dtype == np.float16
        np.testing.assert_array_equal(found, fine)
        np.testing.assert_array_equal(
            store.read_map("pool.coarse", spatial=(slice(2, 9), slice(4, 5))), coarse[:, 2:9, 4:5]
        )

    def test_no_points_give_no_features(self, make_store: MakeStore):
        store = make_store(noise_image("YX", (40, 40)), local_encoder())
        assert store.at(np.empty((0, 2))).shape == (0, 3)

    @pytest.mark.parametrize(
        "points, message",
        [
            (
                [[0, 40]],
                r"expected points inside the image .* to \(0, 0, 39, 39\), found 1 outside, the first \(0, 0, 0, 40\)",
            ),
            ([[-1, 0]], "found 1 outside"),
            ([[np.nan, 0]], "found 1 outside"),
            ([[1, 0, 0, 0]], "found 1 outside"),
            ([[0, 0, 0]], r"expected points as numbers \(N, 2\) .* found int64 \(1, 3\)"),
            ([0, 0], r"found int64 \(2,\)"),
        ],
    )
    def test_at_refuses_points_that_are_none(self, make_store: MakeStore, points, message):
        store = make_store(noise_image("YX", (40, 40)), local_encoder())
        with pytest.raises(ValueError, match=message):
            store.at(points)

    def test_at_refuses_unclear_planes(self, make_store: MakeStore):
        store = make_store(noise_image("ZYX", (2, 40, 40)), local_encoder())
        with pytest.raises(
            ValueError, match=r"expected points as \(t, z, y, x\) for an image with T=1 Z=2, found \(y, x\)"
        ):
            store.at([[0, 0]])
        with pytest.raises(ValueError, match="expected whole numbers for t and z"):
            store.at([[0, 0.5, 0, 0]])

    def test_read_map_refuses_what_is_not_there(self, make_store: MakeStore):
        store = make_store(noise_image("YX", (40, 40)), local_encoder())
        with pytest.raises(ValueError, match="expected one of the maps local, found 'other'"):
            store.read_map("other", spatial=(slice(0, 1), slice(0, 1)))
        for t, spatial in [
            (1, (slice(0, 1), slice(0, 1))),
            (0, (slice(40, 50), slice(0, 1))),
            (0, (slice(0, 9, 2), slice(0, 1))),
        ]:
            with pytest.raises(ValueError, match="expected a frame, a plane and slices inside the map 'local'"):
                store.read_map("local", t=t, spatial=spatial)
