"""Convex hulls of objects, compiled: the first and last pixel of each row in; pixels inside the hull and its diameter out.

A pixel (y, x) stands for the four middles of its sides, (y ± ½, x) and (y, x ± ½). All of it is counted in half pixels, so that whole
numbers decide what lies on the hull::

    half row 2y - 1      o        middle of the upper side: also of the row above, whichever reaches further
    half row 2y        o   o      middles of the left and right side
    half row 2y + 1      o
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from forestbridge.compiled import COMPILED

FAR = 2**40
"""Further than any pixel, in half pixels: where a row holds none."""


@njit(cache=True, **COMPILED)
def hull_sizes(
    rows: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64], bounds: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pixels inside the hull, and largest distance between points on the outline of these pixels, of each object.

    Parameters
    ----------
    rows, left, right
        (R,) first and last pixel of each row that an object has; the rows of an object ascend.
    bounds
        (N + 1,) where the rows of each object begin.
    """
    n = len(bounds) - 1
    area, feret = np.zeros(n, np.int64), np.zeros(n, np.float64)
    for k in range(n):
        a, b = bounds[k], bounds[k + 1]
        top, height = rows[a], rows[b - 1] - rows[a] + 1
        lefts, rights = np.full(height, FAR, np.int64), np.full(height, -FAR, np.int64)
        for i in range(a, b):
            lefts[rows[i] - top], rights[rows[i] - top] = left[i], right[i]
        low, high = _half_rows(lefts, rights, height)
        low_y, low_x, n_low = _chain(low, 1)
        high_y, high_x, n_high = _chain(high, -1)
        for row in range(height):  # half row 2 * row + 1 counted from half row -1
            x0, x1 = _crossing(low_y, low_x, n_low, 2 * row + 1, 1), _crossing(high_y, high_x, n_high, 2 * row + 1, -1)
            lefts[row], rights[row] = x0, x1
            area[k] += x1 - x0 + 1
        low, high = _half_rows(lefts, rights, height)
        low_y, low_x, n_low = _chain(low, 1)
        high_y, high_x, n_high = _chain(high, -1)
        longest = 0
        for i in range(n_low):
            for j in range(n_high):
                longest = max(longest, (low_y[i] - high_y[j]) ** 2 + (low_x[i] - high_x[j]) ** 2)
            for j in range(i):
                longest = max(longest, (low_y[i] - low_y[j]) ** 2 + (low_x[i] - low_x[j]) ** 2)
        for i in range(n_high):
            for j in range(i):
                longest = max(longest, (high_y[i] - high_y[j]) ** 2 + (high_x[i] - high_x[j]) ** 2)
        feret[k] = np.sqrt(longest) / 2
    return area, feret


@njit(**COMPILED)
def _half_rows(lefts, rights, height):
    """Return the outermost points of each half row, from -1 to 2 * height - 1, in half pixels."""
    low, high = np.full(2 * height + 1, FAR, np.int64), np.full(2 * height + 1, -FAR, np.int64)
    for row in range(height):
        if lefts[row] == FAR:
            continue
        low[2 * row + 1], high[2 * row + 1] = 2 * lefts[row] - 1, 2 * rights[row] + 1
        for y in (2 * row, 2 * row + 2):
            low[y], high[y] = min(low[y], 2 * lefts[row]), max(high[y], 2 * rights[row])
    return low, high


@njit(**COMPILED)
def _chain(points, sign):
    """Return the corners of the hull's left (sign 1) or right (sign -1) side, from top to bottom."""
    ys, xs = np.empty(len(points), np.int64), np.empty(len(points), np.int64)
    n = 0
    for y in range(len(points)):
        if abs(points[y]) == FAR:
            continue
        x = points[y]
        while n > 1:
            turn = (xs[n - 1] - xs[n - 2]) * (y - ys[n - 2]) - (x - xs[n - 2]) * (ys[n - 1] - ys[n - 2])
            if sign * turn < 0:
                break
            n -= 1
        ys[n], xs[n] = y, x
        n += 1
    return ys, xs, n


@njit(**COMPILED)
def _crossing(ys, xs, n, y, sign):
    """Return the outermost pixel of a row whose centre lies inside the hull or on it."""
    i = np.searchsorted(ys[:n], y)  # the first corner that is not above
    if ys[i] == y:
        up, across = 1, xs[i]
    else:
        up = ys[i] - ys[i - 1]
        across = xs[i - 1] * up + (xs[i] - xs[i - 1]) * (y - ys[i - 1])
    if sign > 0:
        return -((-across) // (2 * up))
    return across // (2 * up)
