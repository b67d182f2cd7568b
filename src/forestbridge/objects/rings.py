"""Rings from edges, compiled: the edges of pixels in; closed rings of corners that do not touch themselves out."""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from forestbridge.compiled import COMPILED


@njit(cache=True, **COMPILED)
def rings_of(
    owner: NDArray[np.int64], start: NDArray[np.int64], stop: NDArray[np.int64], width: int
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Join edges to rings.

    Parameters
    ----------
    owner, start, stop
        (E,) object, first and last vertex of each edge; sorted by object, then first vertex.
    width
        Vertices in a row of the plane.

    Returns
    -------
    points
        (P, 2) corners as (x, y).
    begins, owners
        (R,) where each ring begins in `points`, and whose it is.
    """
    n = len(owner)
    done = np.zeros(n, np.bool_)
    place = np.full(n, -1, np.int64)  # of an edge in `path`
    points = np.empty((n, 2), np.int64)
    begins, owners = np.empty(n, np.int64), np.empty(n, np.int64)
    path = np.empty(n, np.int64)  # the edges walked along that are not part of a closed ring yet
    n_points = n_rings = 0
    for first in range(n):
        if done[first]:
            continue
        length, edge = 0, first
        while True:
            done[edge] = True
            path[length], place[edge] = edge, length
            length += 1
            low, high = _leaving(edge, owner, start, stop)
            back = max(place[low], place[high])
            if back >= 0:  # the way is back at a vertex that it left: a ring, so that none touches itself
                begins[n_rings], owners[n_rings] = n_points, owner[edge]
                n_points = _corners(path, back, length, start, stop, width, points, n_points)
                n_rings += 1
                for i in range(back, length):
                    place[path[i]] = -1
                length = back
                if length == 0:
                    break
            if done[low] or done[high]:
                edge = high if done[low] else low
            else:
                edge = high if _turns_right(edge, high, start, stop, width) else low
    return points[:n_points], begins[:n_rings], owners[:n_rings]


@njit(**COMPILED)
def _leaving(edge, owner, start, stop):
    """Return the two edges of the object that leave the end of an edge; the same twice where there is one."""
    low, high = 0, len(owner)
    while low < high:
        middle = (low + high) // 2
        if (owner[middle], start[middle]) < (owner[edge], stop[edge]):
            low = middle + 1
        else:
            high = middle
    if low + 1 < len(owner) and owner[low + 1] == owner[edge] and start[low + 1] == stop[edge]:
        return low, low + 1
    return low, low


@njit(**COMPILED)
def _turns_right(edge, following, start, stop, width):
    step = stop[edge] - start[edge]
    right = width if step == 1 else -1 if step == width else -width if step == -1 else 1
    return stop[following] - start[following] == right


@njit(**COMPILED)
def _corners(path, begin, end, start, stop, width, points, n):
    """Append the vertices of a ring at which it turns; return the number of points."""
    before = stop[path[end - 1]] - start[path[end - 1]]
    for i in range(begin, end):
        step = stop[path[i]] - start[path[i]]
        if step != before:
            points[n, 0], points[n, 1] = start[path[i]] % width, start[path[i]] // width
            n += 1
        before = step
    return n
