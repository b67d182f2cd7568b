"""What every encoder must do, as tests: subclass `EncoderConformance` and give it the encoder.

    import pytest
    from forestbridge.encoders.conformance import EncoderConformance

    class TestMyEncoder(EncoderConformance):
        @pytest.fixture
        def encoder(self):
            return open_my_encoder()

Each test computes one to three tiles of noise. An encoder of large tiles is tested with a small tile where it has the choice.
"""

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import Encoder
from forestbridge.encoders.features import CORE, encode_tile, spatial_shape, tiles_of
from forestbridge.image import as_image
from forestbridge.spec import EncoderSpec

Maps = tuple[NDArray[np.float32], ...]


class EncoderConformance:
    """The tests; a subclass has a fixture `encoder`."""

    def test_spec_is_whole(self, encoder: Encoder) -> None:
        """The spec survives JSON, its names are unique, and whole cells cover its tile and halo."""
        spec = encoder.spec
        assert EncoderSpec.from_json(spec.to_json()).fingerprint() == spec.fingerprint()
        assert len(set(spec.feature_names)) == spec.n_features > 0
        assert len(spec.halo) == len(spec.axes) and min(spec.halo) >= 0
        assert spec.tile is None or len(spec.tile) == len(spec.axes)
        for m in spec.maps:
            assert m.stride >= 1
            for pixels in (*(spec.tile or ())[-2:], *(spec.halo[-2:] if m.stride > 1 else ())):
                assert pixels % m.stride == 0, f"{pixels} pixels are no whole number of cells of map {m.name}"

    def test_tiles_join(self, encoder: Encoder) -> None:
        """The cells of all tiles of an image of odd size cover it once, and are finite float32."""
        core = _core(encoder.spec)
        pixels = noise(encoder.spec, (*core[:-2], core[-2] + 5, core[-1] // 2 + 3), seed=1)
        image = as_image(pixels)
        shape = spatial_shape(encoder.spec, image)
        counts = [np.zeros((*shape[:-2], *(m.n_cells(n) for n in shape[-2:])), int) for m in encoder.spec.maps]
        for piece in tiles_of(encoder.spec, image, core=core):
            maps = encode_tile(image, encoder, piece)
            check_maps(maps, encoder.spec, tuple(c.stop - c.start for c in piece.tile.core))
            for m, count in zip(encoder.spec.maps, counts, strict=True):
                *planes, y, x = piece.tile.core
                cells = [
                    slice(round(c.start / m.stride), round(c.start / m.stride) + m.n_cells(c.stop - c.start))
                    for c in (y, x)
                ]
                count[(*planes, *cells)] += 1
        assert all((count == 1).all() for count in counts)

    def test_same_tile_gives_same_result(self, encoder: Encoder) -> None:
        """The same tile gives the same bits, whatever was computed in between, and is not changed."""
        shape = _small(encoder.spec, 23, 30)
        tile, other = noise(encoder.spec, shape, seed=2), noise(encoder.spec, shape, seed=3)
        kept = tile.copy()
        core = tuple(slice(0, n) for n in shape)
        first = encoder.encode(tile, core)
        encoder.encode(other, core)
        again = encoder.encode(tile, core)
        assert all(np.array_equal(a, b) for a, b in zip(first, again, strict=True))
        assert np.array_equal(tile, kept)

    def test_small_images(self, encoder: Encoder) -> None:
        """Images smaller than a tile, down to one pixel, give as many cells as cover them."""
        for y, x in ((1, 1), (2, 7)):
            shape = _small(encoder.spec, y, x)
            maps = encoder.encode(noise(encoder.spec, shape, seed=4), tuple(slice(0, n) for n in shape))
            check_maps(maps, encoder.spec, shape)

    def test_constant_image(self, encoder: Encoder) -> None:
        """A constant image gives finite features."""
        shape = _small(encoder.spec, 19, 24)
        tile = np.full_like(noise(encoder.spec, shape, seed=5), 7.0)
        check_maps(encoder.encode(tile, tuple(slice(0, n) for n in shape)), encoder.spec, shape)

    def test_core_is_cut_out(self, encoder: Encoder) -> None:
        """A core with its halo inside the image gives only the core's cells."""
        core = _core(encoder.spec)
        size = tuple(c + 2 * h for c, h in zip(core, encoder.spec.halo, strict=True))
        place = tuple(slice(h, h + c) for c, h in zip(core, encoder.spec.halo, strict=True))
        check_maps(encoder.encode(noise(encoder.spec, size, seed=6), place), encoder.spec, core)


def check_maps(maps: Maps, spec: EncoderSpec, core: tuple[int, ...]) -> None:
    """Fail unless the maps are those of a core of so many pixels: one (F, ...) finite float32 array per map of the spec."""
    assert len(maps) == len(spec.maps)
    for m, values in zip(spec.maps, maps, strict=True):
        assert values.shape == (len(m.channels), *core[:-2], *(m.n_cells(n) for n in core[-2:]))
        assert values.dtype == np.float32
        assert np.isfinite(values).all()


def noise(spec: EncoderSpec, shape: tuple[int, ...], *, seed: int) -> NDArray[np.float32]:
    """Return (C, ...) random pixels in the range that the spec names, whole numbers up to 255 where it names none."""
    low, high = (np.array(spec.intensity.get(key, [end])).ravel() for key, end in (("low", 0.0), ("high", 255.0)))
    span = (-1, *[1] * len(shape))
    pixels = np.random.default_rng(seed).random((spec.channels, *shape))
    return np.round(low.reshape(span) + pixels * (high - low).reshape(span)).astype(np.float32)


def _core(spec: EncoderSpec) -> tuple[int, ...]:
    """Return the spec's core, or a small one where it leaves the choice."""
    return spec.tile or tuple(min(n, 40) for n in CORE[spec.axes])


def _small(spec: EncoderSpec, y: int, x: int) -> tuple[int, ...]:
    """Return a shape along the encoder's axes that fits into a tile."""
    core = _core(spec)
    return (*(min(n, 5) for n in core[:-2]), min(y, core[-2]), min(x, core[-1]))
