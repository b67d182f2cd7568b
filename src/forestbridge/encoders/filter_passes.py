"""Passes of the filter bank over one block, compiled: presmoothing, and derivatives with five taps.

The unit of work is a row of pixels. A correlation along any axis is a sum of rows, and the processor adds eight pixels at a time.
Volumes are flat arrays: planes of rows of pixels. A block in 2D is a volume of one plane.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from forestbridge.compiled import COMPILED, EXACT

MARGIN = 3
"""Pixels around a presmoothed block: the structure tensor's edges reach 1 and its smoothing 2, the other filters 2."""


class Block(NamedTuple):
    """Where a block lies in its tile, and the layout of its volumes.

    Attributes
    ----------
    z, y, x, depth, height, width
        First pixel and size.
    nz, ny, nx
        Size of the tile; where a block's margin leaves the tile, the image ends.
    margin_z
        `MARGIN`, or 0 in 2D.
    row, plane
        Pixels from one row, and from one plane, of a volume to the next.
    """

    z: int
    y: int
    x: int
    depth: int
    height: int
    width: int
    nz: int
    ny: int
    nx: int
    margin_z: int
    row: int
    plane: int


@njit(**COMPILED)
def mirror(i, n):
    """Return the pixel that stands for pixel i of a line of n: reflected at its ends as often as it takes."""
    if n == 1:
        return 0
    i = abs(i) % (2 * (n - 1))
    return i if i < n else 2 * (n - 1) - i


@njit(**COMPILED)
def presmooth(tile, block, taps, smooth):
    """Write the smoothed block with its margin; where that lies outside the tile, the tile is read as continued by reflection."""
    reach = len(taps) // 2
    # What is read of each plane, inside the tile.
    top, bottom = max(block.y - MARGIN - reach, 0), min(block.y + block.height + MARGIN + reach, block.ny)
    left, right = max(block.x - MARGIN - reach, 0), min(block.x + block.width + MARGIN + reach, block.nx)
    line = np.empty(block.row + 2 * reach)
    starts = np.empty(len(taps), np.uint64)
    if block.margin_z == 0:
        _smooth_plane(tile, block.z * block.ny * block.nx, block.nx, block, left, right, taps, line, starts, smooth, 0)
        return
    along_z = np.empty((bottom - top) * (right - left))
    origin = -top * (right - left) - left  # where the tile's first pixel would be
    for z in range(block.depth + 2 * MARGIN):
        for y in range(top, bottom):
            for k in range(len(taps)):
                plane = mirror(block.z + z - MARGIN + k - reach, block.nz)
                starts[k] = (plane * block.ny + y) * block.nx + left
            _correlate(taps, tile, starts, along_z, (y - top) * (right - left), right - left)
        _smooth_plane(along_z, origin, right - left, block, left, right, taps, line, starts, smooth, z * block.plane)


@njit(**COMPILED)
def _smooth_plane(source, origin, source_row, block, left, right, taps, line, starts, target, to):
    """Smooth a plane along y and x: from `source`, in which pixel (y, x) of the tile is at origin + y · source_row + x."""
    reach = len(taps) // 2
    first = block.x - MARGIN - reach  # the column at the beginning of `line`
    for y in range(block.height + 2 * MARGIN):
        for k in range(len(taps)):
            starts[k] = origin + mirror(block.y + y - MARGIN + k - reach, block.ny) * source_row + left
        _correlate(taps, source, starts, line, left - first, right - left)
        for x in range(first, left):
            line[x - first] = line[mirror(x, block.nx) - first]
        for x in range(right, first + len(line)):
            line[x - first] = line[mirror(x, block.nx) - first]
        for k in range(len(taps)):
            starts[k] = k
        _correlate(taps, line, starts, target, to + y * block.row, block.row)


@njit(**EXACT)
def _correlate(taps, source, starts, target, to, n):
    """Write the sum of taps[k] · (the row of n pixels of `source` that begins at starts[k]).

    Four rows are added at a time, so that the sum is read and written less often.
    """
    to, n = np.uint64(to), np.uint64(n)
    a, p = starts[0], taps[0]
    for x in range(n):
        target[to + x] = p * source[a + x]
    k = 1
    while k + 4 <= len(taps):
        a, b, c, d = starts[k], starts[k + 1], starts[k + 2], starts[k + 3]
        p, q, r, s = taps[k], taps[k + 1], taps[k + 2], taps[k + 3]
        for x in range(n):
            first_two = target[to + x] + p * source[a + x] + q * source[b + x]
            target[to + x] = first_two + r * source[c + x] + s * source[d + x]
        k += 4
    while k < len(taps):
        a, p = starts[k], taps[k]
        for x in range(n):
            target[to + x] += p * source[a + x]
        k += 1


@njit(**EXACT)
def derive(taps, order, source, at, step, target, to, n):
    """Correlate n pixels with the five taps of an order, whose sources lie `step` pixels apart.

    `step` is 1 along x, the length of a row along y and of a plane along z.
    """
    at, step, to, n = np.uint64(at), np.uint64(step), np.uint64(to), np.uint64(n)
    p, q, r, s, t = taps[order, 0], taps[order, 1], taps[order, 2], taps[order, 3], taps[order, 4]
    b, d = at - step, at + step
    if p == 0 and t == 0:
        for x in range(n):
            target[to + x] = q * source[b + x] + r * source[at + x] + s * source[d + x]
    else:
        a, e = b - step, d + step
        for x in range(n):
            first_three = p * source[a + x] + q * source[b + x] + r * source[at + x]
            target[to + x] = first_three + s * source[d + x] + t * source[e + x]
