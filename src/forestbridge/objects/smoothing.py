"""Mean curvature smoothing, compiled: a mask in, a smooth float mask out. Corners move, straight borders stay.

Each iteration adds a quarter of |grad| times the curvature, from differences of the 3 × 3 neighbours; beyond the image the pixels at its
border go on. A strip of rows goes through several iterations while it is in the cache: with every iteration it loses a row at each end,
which it took along from its neighbours.
"""

import math
from collections.abc import Callable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from forestbridge.compiled import COMPILED, source_hash

STRIP_BYTES = 2**19
"""About how much a strip and its copy hold."""

AT_ONCE = 5
"""Iterations that a strip goes through before the next one's turn."""


def mean_curvature(image: NDArray, iterations: int) -> NDArray[np.float32]:
    """Return an image after some iterations of mean curvature smoothing.

    Parameters
    ----------
    image
        (Y, X).
    iterations
        0 returns the image.

    Returns
    -------
    smoothed
        (Y, X) float32.
    """
    width = image.shape[1]
    source = np.pad(np.asarray(image, np.float32), 1, mode="edge")
    target = np.empty_like(source)
    rows = max(16, STRIP_BYTES // (8 * (width + 2)))
    done = 0
    while done < iterations:
        n = min(AT_ONCE, iterations - done)
        _advance(source, target, n, rows)
        source, target = target, source
        done += n
    return source[1:-1, 1:-1].copy()


@njit(**COMPILED)
def _step(above, row, below, out):
    """Write one iteration of a row of the padded image.

    Where the gradient is small, its direction hangs on the last bit, and so would the result: the terms are those of the formula, in
    its order, and no product and sum become one instruction.
    """
    for x in range(1, len(row) - 1):
        dx = row[x + 1] - row[x - 1]
        dy = below[x] - above[x]
        twice = np.float32(2) * row[x]
        dxx = row[x + 1] + row[x - 1] - twice
        dyy = below[x] + above[x] - twice
        dxy = np.float32(0.25) * (below[x + 1] - above[x + 1] - below[x - 1] + above[x - 1])
        dx2, dy2 = dx * dx, dy * dy
        square = dx2 + dy2
        change = dx2 * dyy + dy2 * dxx - np.float32(2) * dx * dy * dxy
        cube = np.float32(np.float64(square) * square * square)
        curvature = change / (math.sqrt(cube) if cube > 0 else np.float32(1))
        out[x] = row[x] + np.float32(0.25) * math.sqrt(square) * curvature
    out[0], out[len(row) - 1] = out[1], out[len(row) - 2]


def _cached(sources: str) -> Callable[..., None]:
    @njit(cache=True, **COMPILED)
    def advance(source, target, iterations, rows):
        """Write `target`, the padded image `source` after some iterations, strip by strip."""
        assert sources  # part of the cache's key
        height, width = source.shape[0] - 2, source.shape[1]
        depth = rows + 2 * iterations + 2
        a, b = np.empty((depth, width), np.float32), np.empty((depth, width), np.float32)
        for first in range(0, height, rows):
            last = min(first + rows, height)
            top, bottom = max(0, first - iterations), min(height, last + iterations)
            # row y of the image is row y - top + 1 of a strip; the rows around it are the next ones or repeat the border
            n = bottom - top
            a[: n + 2] = source[top : bottom + 2]
            for k in range(iterations):
                low = k if top > 0 else 0
                high = n - k if bottom < height else n
                for y in range(low, high):
                    _step(a[y], a[y + 1], a[y + 2], b[y + 1])
                if top == 0:
                    b[0] = b[1]
                if bottom == height:
                    b[n + 1] = b[n]
                a, b = b, a
            target[first + 1 : last + 1] = a[first - top + 1 : last - top + 1]
        target[0], target[height + 1] = target[1], target[height]

    return advance


_advance = _cached(source_hash(__file__))
