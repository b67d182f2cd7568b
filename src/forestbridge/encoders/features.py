"""From images to features: tile by tile, at single pixels, or a whole plane in memory."""

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import islice, pairwise
from pathlib import PurePath
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import BatchEncoder, Encoder
from forestbridge.encoders.intensity import read_pixels
from forestbridge.errors import ImageError
from forestbridge.image import Image, ImageShape, as_image
from forestbridge.spec import EncoderSpec, MapSpec
from forestbridge.stores import FeatureStore
from forestbridge.stores.lookup import corners, interpolate
from forestbridge.threads import in_order
from forestbridge.tiles import Tile, interpolation_cells, plan_strips, plan_tiles

T = TypeVar("T")

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
    return encoder.encode(*read_tile(image, encoder.spec, piece))


def read_tile(image: Image, spec: EncoderSpec, piece: TileOfImage) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Return what an encoder gets: core and halo inside the image, and where the core lies in it."""
    image_slices, tile_core = piece.tile.inside(spatial_shape(spec, image))
    return read_pixels(image, spec, image_slices, t=piece.t, z=piece.z), tile_core


def encode_tiles(
    image: Image, encoder: Encoder, pieces: Iterable[TileOfImage], threads: int | None = None
) -> Iterator[tuple[NDArray, ...]]:
    """Yield the maps of tiles, in their order, in the stored dtypes.

    Encoders that take several tiles at once get them while the next ones are read.
    """
    if isinstance(encoder, BatchEncoder):
        tiles = in_order(partial(read_tile, image, encoder.spec), pieces, threads)
        encoded = (maps for batch in batches(tiles, encoder) for maps in encoder.encode_batch(batch))
    else:
        encoded = in_order(partial(encode_tile, image, encoder), pieces, threads)
    for maps in encoded:
        yield tuple(m.astype(d, copy=False) for m, d in zip(maps, encoder.spec.dtypes, strict=True))


def batches(items: Iterable[T], encoder: BatchEncoder) -> Iterator[list[T]]:
    """Yield as many items as the encoder takes at once."""
    items = iter(items)
    while batch := list(islice(items, encoder.batch or 1)):
        yield batch


def features(image: Image | NDArray, encoder: Encoder) -> NDArray[np.float32]:
    """Return all features of one plane or stack, everything in memory: for notebooks and tests.

    Parameters
    ----------
    image
        An image of one frame, or an array (Y, X), (C, Y, X) or (C, Z, Y, X).
    encoder
        Any encoder. Maps of a larger stride are interpolated to the pixels, as a forest sees them.

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
    plain = all(m.is_plain for m in spec.maps)
    if len(pieces) == 1 and plain and spec.dtypes == ("float32",):  # an encoder divides its work itself
        [result] = encode_tile(image, encoder, pieces[0])
        return result if "Z" not in image.axes or spec.axes == "zyx" else result[:, None]
    result = np.empty((spec.n_features, sizes["Z"], sizes["Y"], sizes["X"]), np.float32)
    starts = np.cumsum([0, *(len(m.channels) for m in spec.maps)]).tolist()
    targets = [result[a:b] for a, b in pairwise(starts)]  # (F, Z, Y, X) of each map
    cells = [target if m.is_plain else _cells_of(m, image) for m, target in zip(spec.maps, targets, strict=True)]
    for piece, maps in zip(pieces, encode_tiles(image, encoder, pieces), strict=True):
        for whole, m, values in zip(cells, spec.maps, maps, strict=True):
            whole[(slice(None), *_place(m, piece))] = values if piece.z is None else values[:, None]
    for m, whole, target in zip(spec.maps, cells, targets, strict=True):
        if not m.is_plain:
            _interpolate(m, whole, target)
    return result if "Z" in image.axes else result[:, 0]


def _cells_of(m: MapSpec, image: Image) -> NDArray[np.float32]:
    """Return an empty (F, Z, rows, columns) float32 array for a map of one frame."""
    sizes = image.sizes
    return np.empty((len(m.channels), sizes["Z"], m.n_cells(sizes["Y"]), m.n_cells(sizes["X"])), np.float32)


def _place(m: MapSpec, piece: TileOfImage) -> tuple[slice, slice, slice]:
    """Return the planes, rows and columns of cells that belong to a tile."""
    *planes, y, x = piece.tile.core
    rows, columns = (slice(round(c.start / m.stride), m.n_cells(c.stop)) for c in (y, x))
    return planes[0] if planes else slice(piece.z, (piece.z or 0) + 1), rows, columns


def _interpolate(m: MapSpec, cells: NDArray[np.float32], pixels: NDArray[np.float32]) -> None:
    """Write the (F, Z, Y, X) pixels of a map from its (F, Z, rows, columns) cells."""
    (rows, columns), (height, width) = cells.shape[-2:], pixels.shape[-2:]
    top, bottom, down = interpolation_cells(np.arange(height), m.stride, m.offset, rows)
    left, right, along = interpolation_cells(np.arange(width), m.stride, m.offset, columns)
    for plane, target in zip(cells.reshape(-1, rows, columns), pixels.reshape(-1, height, width), strict=True):
        lines = (1 - along) * plane[:, left] + along * plane[:, right]  # (rows, X)
        target[...] = (1 - down[:, None]) * lines[top] + down[:, None] * lines[bottom]


def features_at(
    image: Image, encoder: Encoder, points: NDArray[np.integer], *, threads: int | None = None
) -> NDArray[np.float32]:
    """Return the features at some pixels; only the tiles that hold one, or a cell beside one, are computed.

    Parameters
    ----------
    points
        (N, 4) pixels as (t, z, y, x).
    threads
        Tiles that are computed at the same time; all cores by default.

    Returns
    -------
    features
        (N, F) float32, in the order of the points, as a store of the encoder gives them.
    """
    check_image(encoder.spec, image)
    spec = encoder.spec
    where = dict(zip("tzyx", np.asarray(points, np.intp).T, strict=True))
    wanted = []
    for m in spec.maps:
        shape = [image.sizes["T"], image.sizes["Z"], m.n_cells(image.sizes["Y"]), m.n_cells(image.sizes["X"])]
        cells, weights = corners(m, "tzyx", shape, where)
        wanted.append(_Wanted(m, cells, weights, np.empty((len(cells["y"]), len(m.channels)), np.float32)))

    def chosen(piece: TileOfImage) -> list[tuple[NDArray[np.intp], tuple[NDArray[np.intp], ...]]]:
        return [w.in_tile(piece) for w in wanted]

    pieces = [piece for piece in tiles_of(spec, image) if any(len(rows) for rows, _ in chosen(piece))]
    for piece, maps in zip(pieces, encode_tiles(image, encoder, pieces, threads), strict=True):
        for w, (rows, place), values in zip(wanted, chosen(piece), maps, strict=True):
            w.values[rows] = values[(slice(None), *place)].T  # (F, n) -> (n, F)
    return np.concatenate([interpolate(w.values, w.weights) for w in wanted], axis=1)


class _Wanted(NamedTuple):
    """The cells of a map that points lie between.

    Attributes
    ----------
    cells, weights
        As `forestbridge.stores.lookup.corners` returns them: n cells.
    values
        (n, F) float32, to be filled.
    """

    map: MapSpec
    cells: dict[str, NDArray[np.intp]]
    weights: tuple[NDArray[np.float32], NDArray[np.float32]] | None
    values: NDArray[np.float32]

    def in_tile(self, piece: TileOfImage) -> tuple[NDArray[np.intp], tuple[NDArray[np.intp], ...]]:
        """Return which cells belong to a tile, and their places among the cells of its core."""
        planes, rows, columns = _place(self.map, piece)
        inside = self.cells["t"] == piece.t
        for axis, part in zip("zyx", (planes, rows, columns), strict=True):
            inside = inside & (self.cells[axis] >= part.start) & (self.cells[axis] < part.stop)
        chosen = np.flatnonzero(inside)
        place = tuple(self.cells[a][chosen] - p.start for a, p in zip("zyx", (planes, rows, columns), strict=True))
        return chosen, place if piece.z is None else place[1:]
