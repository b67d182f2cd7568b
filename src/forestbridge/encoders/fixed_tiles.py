"""Tiles of one fixed size for graphs of deep encoders: the same grid, and the same pixels, as `DeepEncoder.encode` sees."""

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.features import TileOfImage, spatial_shape
from forestbridge.image import Image
from forestbridge.spec import EncoderSpec
from forestbridge.tiles import whole_tile


def read_whole_tile(image: Image, spec: EncoderSpec, place: TileOfImage) -> NDArray[np.float32]:
    """Return the (C, T, T) float32 pixels of a tile with its halo, continued by reflection beyond the image."""
    assert spec.tile is not None
    inside, core = place.tile.inside(spatial_shape(spec, image))
    sides = [c + 2 * h for c, h in zip(spec.tile, spec.halo, strict=True)]
    return np.ascontiguousarray(whole_tile(image.region(inside, t=place.t, z=place.z), core, sides, spec.halo))


def core_of(result: NDArray[np.float32], spec: EncoderSpec, place: TileOfImage) -> NDArray[np.float32]:
    """Return the core's part of a result (K, T, T) for a whole tile."""
    kept = tuple(slice(h, h + c.stop - c.start) for h, c in zip(spec.halo, place.tile.core, strict=True))
    return result[(slice(None), *kept)]
