"""Tiles of one fixed size for graphs of deep encoders: the same grid, and the same pixels, as `DeepEncoder.encode` sees."""

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.features import TileOfImage, spatial_shape
from forestbridge.image import Image
from forestbridge.spec import EncoderSpec
from forestbridge.tiles import whole_tile


def package_halo(spec: EncoderSpec) -> tuple[int, ...]:
    """Return the halo of a package's tile per axis: the encoder's, rounded up to an even number, which all programs take."""
    return tuple(halo + halo % 2 for halo in spec.halo)


def package_sides(spec: EncoderSpec) -> tuple[int, ...]:
    """Return the size of a package's tile with its halo, per axis; for encoders of a fixed tile."""
    assert spec.tile is not None
    return tuple(core + 2 * halo for core, halo in zip(spec.tile, package_halo(spec), strict=True))


def read_whole_tile(image: Image, spec: EncoderSpec, place: TileOfImage) -> NDArray[np.float32]:
    """Return the (C, T, T) float32 pixels of a package's tile with its halo, continued by reflection beyond the image."""
    inside, core = place.tile.inside(spatial_shape(spec, image))
    pixels = image.region(inside, t=place.t, z=place.z)
    return np.ascontiguousarray(whole_tile(pixels, core, package_sides(spec), package_halo(spec)))


def core_of(result: NDArray[np.float32], spec: EncoderSpec, place: TileOfImage) -> NDArray[np.float32]:
    """Return the core's part of a result (K, T, T) for a whole tile."""
    kept = tuple(slice(h, h + c.stop - c.start) for h, c in zip(package_halo(spec), place.tile.core, strict=True))
    return result[(slice(None), *kept)]
