"""Integer geometry: how an image is cut into tiles, and where the cells of a strided map lie.

    outer (read as far as it lies inside the image)
    ┌───────────────────────────┐
    │  halo                     │        core: the part whose result is kept; the cores of an image cover every pixel once
    │   ┌───────────────────┐   │        halo: the context around it that the encoder needs; per axis
    │   │                   │   │        outer: core grown by the halo; its start may be negative, its stop beyond the image
    │   │       core        │   │
    │   │                   │   │        Frames: `image_*` counts from the image's first pixel,
    │   └───────────────────┘   │                `tile_*` from the first pixel of outer.
    │                           │
    └───────────────────────────┘

A map of stride s and offset o has the centre of its cell i on image pixel o + s·i (half-pixel convention, as in OME-Zarr and in
`torch.nn.functional.interpolate(align_corners=False)`; a resize by r turns a network's own (j, o) into s = j/r and
o' = (o + 0.5)/r - 0.5). Everything here works per axis, for (y, x) and for (z, y, x) alike.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Tile(NamedTuple):
    """A piece of work, in image pixels, one slice per spatial axis."""

    core: tuple[slice, ...]
    outer: tuple[slice, ...]

    def inside(self, shape: Sequence[int]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """Return what to read, and where the core lies in it.

        Parameters
        ----------
        shape
            Spatial shape of the image.

        Returns
        -------
        image_slices
            Outer, clipped at the image's borders: the tile that an encoder gets. A border of the image stays a border of the
            tile, so that a filter of several passes reflects there in each pass, as it does on the whole image.
        tile_core
            The core in the frame of this tile.
        """
        image_slices = tuple(slice(max(o.start, 0), min(o.stop, n)) for o, n in zip(self.outer, shape, strict=True))
        tile_core = tuple(
            slice(c.start - i.start, c.stop - i.start) for c, i in zip(self.core, image_slices, strict=True)
        )
        return image_slices, tile_core


def plan_tiles(shape: Sequence[int], core: Sequence[int], halo: Sequence[int]) -> Iterator[Tile]:
    """Yield tiles whose cores cover every pixel exactly once, in C order.

    Parameters
    ----------
    shape
        Spatial shape of the image, (y, x) or (z, y, x).
    core
        Core size per axis; the last tile of an axis is smaller where the shape is no multiple.
    halo
        Margin per axis, ≥ 0.
    """
    if not len(shape) == len(core) == len(halo) or min(core) < 1 or min(halo) < 0:
        raise ValueError(
            f"expected core ≥ 1 and halo ≥ 0 for each axis of {tuple(shape)}, found core {tuple(core)}, halo {tuple(halo)}"
        )
    starts = [range(0, n, c) for n, c in zip(shape, core, strict=True)]
    for start in product(*starts):
        stop = [min(s + c, n) for s, c, n in zip(start, core, shape, strict=True)]
        yield Tile(
            core=tuple(slice(a, b) for a, b in zip(start, stop, strict=True)),
            outer=tuple(slice(a - h, b + h) for a, b, h in zip(start, stop, halo, strict=True)),
        )


def plan_strips(shape: Sequence[int], block: Sequence[int], *, most: int) -> Iterator[Tile]:
    """Yield tiles that cover a plane block by block, each block from top to bottom, for reading blocks once and in turn.

    Parameters
    ----------
    shape, block
        Of the plane and of its blocks, (y, x).
    most
        Most pixels of a tile; at least a row of a block.
    """
    rows = max(1, most // block[1])
    for y, x in (tile.core for tile in plan_tiles(shape, block, (0, 0))):
        for start in range(y.start, y.stop, rows):
            core = (slice(start, min(start + rows, y.stop)), x)
            yield Tile(core=core, outer=core)


def plan_windows(size: int, window: int, halo: int) -> list[tuple[slice, slice]]:
    """Cut one axis into windows of equal length that slide to stay inside the image.

    Parameters
    ----------
    size
        Length of the axis, ≥ `window`.
    window
        Length of every window, > 2·`halo`.
    halo
        Pixels of a window's end that are not kept, except at the image's own ends.

    Returns
    -------
    windows
        (core, window) slices; the cores cover the axis once, and each lies inside its window.
    """
    if not 2 * halo < window <= size:
        raise ValueError(f"expected a window above twice the halo {halo} and within the axis of {size}, found {window}")
    windows, done = [], 0
    while done < size:
        start = min(max(done - halo, 0), size - window)
        stop = size if start + window == size else start + window - halo
        windows.append((slice(done, stop), slice(start, start + window)))
        done = stop
    return windows


def interpolation_cells(
    positions: NDArray, stride: float, offset: float, size: int
) -> tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]:
    """Return the two cells around each pixel position of one axis, and the weight of the second.

    Parameters
    ----------
    positions
        (N,) pixel positions in the image.
    stride, offset
        Of the map.
    size
        Number of cells of the map along this axis; positions beyond the outermost centres are clamped.

    Returns
    -------
    first, second
        (N,) cell indices, equal where clamped and on the centre of a cell: a cell of weight 0 need not be there, nor be read.
    weight
        (N,) float32: value = (1 - weight)·cell[first] + weight·cell[second].
    """
    cell = np.clip((np.asarray(positions, np.float64) - offset) / stride, 0, size - 1)
    first = np.floor(cell).astype(np.intp)
    second = np.ceil(cell).astype(np.intp)
    return first, second, (cell - first).astype(np.float32)


def cell_window(pixels: slice, stride: float, offset: float, size: int) -> slice:
    """Return the cells of one axis that pixels lie between.

    Parameters
    ----------
    pixels
        Start and stop in the image.
    stride, offset, size
        Of the map, as in `interpolation_cells`.
    """
    first, second, _ = interpolation_cells(np.array([pixels.start, pixels.stop - 1]), stride, offset, size)
    return slice(int(first[0]), int(second[1]) + 1)


def reflected(positions: NDArray[np.intp], size: int) -> NDArray[np.intp]:
    """Return the pixels that stand at positions beyond an axis: mirrored at the centres of its ends, as often as needed."""
    if size == 1:
        return np.zeros_like(positions)
    place = np.abs(positions) % (2 * size - 2)
    return np.minimum(place, 2 * size - 2 - place)


def whole_tile(
    tile: NDArray[np.float32], core: tuple[slice, ...], sides: Sequence[int], halo: Sequence[int]
) -> NDArray[np.float32]:
    """Return a tile that was clipped at the image's borders in its full size, continued there by reflection; a view where it was not.

    Parameters
    ----------
    tile, core
        (C, y, x) and the place of the core in it, as `Tile.inside` gives them.
    sides, halo
        Full size with the halo, and the halo, per axis.
    """
    for axis, (side, margin, place) in enumerate(zip(sides, halo, core, strict=True), start=1):
        start, size = place.start - margin, tile.shape[axis]
        if 0 <= start <= size - side:
            tile = tile[(slice(None),) * axis + (slice(start, start + side),)]
        else:
            tile = tile.take(reflected(np.arange(start, start + side), size), axis)
    return tile
