"""From images to features: tile by tile, at single pixels, or a whole plane in memory."""

from collections.abc import Sequence
from pathlib import PurePath
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import Encoder
from forestbridge.errors import ImageError
from forestbridge.image import Image, ImageShape, as_image
from forestbridge.spec import EncoderSpec
from forestbridge.stores import FeatureStore
from forestbridge.threads import for_each
from forestbridge.tiles import Tile, plan_strips, plan_tiles

CORE = {"yx": (64, 512), "zyx": (16, 64, 128)}
"""Core of a tile for encoders whose values do not depend on it: with 49 float32 features 6 MB, with 61 in 3D 32 MB. Small, because each
thread holds one; and wide, because a row of pixels is what the filters work on."""

MIN_PLANES_3D = 3
"""Filters along z need as many planes; with fewer, ilastik silently computes them in 2D, which changes the features' number."""


def as_source(source: Image | NDArray | FeatureStore) -> Image | FeatureStore:
    """Return an image for an image or an array, and a store as it is.

    Raises
    ------
    TypeError
        If it is a path.
    """
    if isinstance(source, str | PurePath):
        raise TypeError(
            f"expected an image, an array or a feature store, found the path {str(source)!r}; open it with read_image or open_store"
        )
    return as_image(source) if isinstance(source, Image | np.ndarray) else source


def check_image(spec: EncoderSpec, image: Image) -> None:
    """Refuse an image that an encoder cannot take.

    Raises
    ------
    ImageError
        If the number of channels differs, or a 3D encoder meets fewer than three planes.
    """
    if image.n_channels != spec.channels:
        names = f" ({', '.join(image.channel_names)})" if image.channel_names else ""
        raise ImageError(
            f"{image.source}: expected {spec.channels} channel(s) for the encoder {spec}, found {image.n_channels}{names}; "
            "choose them with --channels (read_image(..., channels=[...])), or open the encoder with as many channels"
        )
    if spec.axes == "zyx" and image.sizes["Z"] < MIN_PLANES_3D:
        raise ImageError(
            f"{image.source}: expected at least {MIN_PLANES_3D} planes for 3D filters, found {image.sizes['Z']}; "
            "use 2D filters (without --3d; compute_in_2d=True) or give a stack"
        )


def work_units(spec: EncoderSpec, image: ImageShape) -> list[tuple[int, int | None]]:
    """Return what an encoder sees as one picture: (t, z) of each plane, or (t, None) of each stack for 3D encoders."""
    planes = range(image.sizes["Z"]) if spec.axes == "yx" else (None,)
    return [(t, z) for t in range(image.sizes["T"]) for z in planes]


def spatial_shape(spec: EncoderSpec, image: ImageShape) -> tuple[int, ...]:
    """Return the image's size along the encoder's axes."""
    return tuple(image.sizes[a.upper()] for a in spec.axes)


class TileOfImage(NamedTuple):
    """A tile of one plane, or for 3D encoders of one stack; z is None for these."""

    t: int
    z: int | None
    tile: Tile


def tiles_of(spec: EncoderSpec, image: ImageShape, *, core: Sequence[int] | None = None) -> list[TileOfImage]:
    """Return all tiles of an image: plane by plane, row by row.

    Parameters
    ----------
    core
        Of a tile; by default the spec's, or `CORE` where it leaves the choice.
    """
    tiles = list(plan_tiles(spatial_shape(spec, image), core or spec.tile or CORE[spec.axes], spec.halo))
    return [TileOfImage(t, z, tile) for t, z in work_units(spec, image) for tile in tiles]


def strips_of(store: FeatureStore, *, most: int) -> list[TileOfImage]:
    """Return tiles of at most so many pixels that read a store's blocks in turn; empty for a store without blocks."""
    if store.block is None:
        return []
    strips = list(plan_strips(spatial_shape(store.spec, store.image), store.block, most=most))
    return [TileOfImage(t, z, tile) for t, z in work_units(store.spec, store.image) for tile in strips]


def encode_tile(image: Image, encoder: Encoder, piece: TileOfImage) -> tuple[NDArray[np.float32], ...]:
    """Return one (F, ...) float32 array per map, covering the tile's core at the map's stride."""
    image_slices, tile_core = piece.tile.inside(spatial_shape(encoder.spec, image))
    return encoder.encode(image.region(image_slices, t=piece.t, z=piece.z), tile_core)


def features(image: Image | NDArray, encoder: Encoder) -> NDArray[np.float32]:
    """Return all features of one plane or stack, everything in memory: for notebooks and tests.

    Parameters
    ----------
    image
        An image of one frame, or an array (Y, X), (C, Y, X) or (C, Z, Y, X).
    encoder
        Any encoder whose maps have stride 1.

    Returns
    -------
    features
        (F, Y, X), or (F, Z, Y, X) for an image with a z axis, float32, in the order of ``encoder.spec.feature_names``.

    Raises
    ------
    ImageError
        If the encoder cannot take the image, or it has several frames.
    """
    image = as_image(image)
    check_image(encoder.spec, image)
    if image.sizes["T"] > 1:
        raise ImageError(f"{image.source}: expected one frame, found {image.sizes['T']}; use extract for a series")
    sizes, spec = image.sizes, encoder.spec
    pieces = tiles_of(spec, image, core=spec.tile or spatial_shape(spec, image))
    if len(pieces) == 1:  # an encoder divides its work itself
        maps = encode_tile(image, encoder, pieces[0])
        result = maps[0] if len(maps) == 1 else np.concatenate(maps)
        return result if "Z" not in image.axes or spec.axes == "zyx" else result[:, None]
    result = np.empty((spec.n_features, sizes["Z"], sizes["Y"], sizes["X"]), np.float32)

    def work(piece: TileOfImage) -> None:
        target = result if piece.z is None else result[:, piece.z]
        first = 0
        for values in encode_tile(image, encoder, piece):
            target[(slice(first, first + len(values)), *piece.tile.core)] = values
            first += len(values)

    for_each(work, pieces)
    return result if "Z" in image.axes else result[:, 0]


def features_at(
    image: Image, encoder: Encoder, points: NDArray[np.integer], *, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the features at some pixels; only the tiles that hold one are computed.

    Parameters
    ----------
    points
        (N, 4) pixels as (t, z, y, x).
    threads
        Tiles that are computed at the same time; all cores by default.

    Returns
    -------
    features
        (N, F) float32, in the order of the points.
    """
    check_image(encoder.spec, image)
    result = np.empty((len(points), encoder.spec.n_features), np.float32)

    def work(piece: TileOfImage) -> None:
        in_unit = (points[:, 0] == piece.t) & ((points[:, 1] == piece.z) if piece.z is not None else True)
        position = points[:, 2:] if piece.z is not None else points[:, 1:]  # (N, 2) or (N, 3)
        start, stop = np.array([(c.start, c.stop) for c in piece.tile.core]).T
        chosen = np.flatnonzero(in_unit & ((position >= start) & (position < stop)).all(axis=1))
        if len(chosen):
            maps = encode_tile(image, encoder, piece)
            place = tuple((position[chosen] - start).T)  # one index array per spatial axis
            result[chosen] = np.concatenate([m[(slice(None), *place)] for m in maps]).T  # (F, n) -> (n, F)

    for_each(work, tiles_of(encoder.spec, image), threads)
    return result
