"""Integer geometry: how an image is cut into tiles, and where the cells of a strided map lie.

    outer (read, reflected where it leaves the image)
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

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Tile(NamedTuple):
    """A piece of work, in image pixels, one slice per spatial axis."""

    core: tuple[slice, ...]
    outer: tuple[slice, ...]

    @property
    def core_shape(self) -> tuple[int, ...]:
        """Size of the core per axis."""
        return tuple(s.stop - s.start for s in self.core)


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
        raise ValueError(f"expected core ≥ 1 and halo ≥ 0 for each axis of {tuple(shape)}, found core {tuple(core)}, halo {tuple(halo)}")
    starts = [range(0, n, c) for n, c in zip(shape, core, strict=True)]
    for start in product(*starts):
        stop = [min(s + c, n) for s, c, n in zip(start, core, shape, strict=True)]
        yield Tile(
            core=tuple(slice(a, b) for a, b in zip(start, stop, strict=True)),
            outer=tuple(slice(a - h, b + h) for a, b, h in zip(start, stop, halo, strict=True)),
        )


def reflect_index(start: int, stop: int, size: int) -> NDArray[np.intp]:
    """Return where pixels start..stop-1 lie inside an axis of `size`, reflected at both ends without repeating the edge.

    As numpy.pad(mode="reflect"), any number of reflections; an axis of one pixel repeats it.
    """
    index = np.arange(start, stop)
    if size == 1:
        return np.zeros_like(index)
    period = 2 * (size - 1)
    index = np.abs(index) % period
    return np.minimum(index, period - index)


def read_outer(read: Callable[[tuple[slice, ...]], NDArray], outer: Sequence[slice], shape: Sequence[int]) -> NDArray:
    """Read a region that may leave the image, reflecting at the image's borders.

    Parameters
    ----------
    read
        Called once with slices inside the image; returns an array whose last axes are these slices.
    outer
        The region, one slice per spatial axis.
    shape
        Spatial shape of the image.

    Returns
    -------
    array
        (..., outer) contiguous.
    """
    indices = [reflect_index(o.start, o.stop, n) for o, n in zip(outer, shape, strict=True)]
    inside = tuple(slice(int(i.min()), int(i.max()) + 1) for i in indices)
    array = read(inside)
    for axis, (index, part) in enumerate(zip(indices, inside, strict=True)):
        if len(index) != part.stop - part.start or index[0] > index[-1] or np.any(np.diff(index) != 1):
            array = np.take(array, index - part.start, axis=axis - len(indices))
    return np.ascontiguousarray(array)


def map_shape(shape: Sequence[int], stride: float) -> tuple[int, ...]:
    """Return the number of cells that cover a plane of `shape` (y, x) pixels at `stride`."""
    return tuple(math.ceil(n / stride) for n in shape)


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
        (N,) cell indices, equal where clamped.
    weight
        (N,) float32: value = (1 - weight)·cell[first] + weight·cell[second].
    """
    cell = np.clip((np.asarray(positions, np.float64) - offset) / stride, 0, size - 1)
    first = np.floor(cell).astype(np.intp)
    second = np.minimum(first + 1, size - 1)
    return first, second, (cell - first).astype(np.float32)
