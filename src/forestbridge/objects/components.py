"""Connected components, compiled: pixels of one class that touch become one object, whatever the number of classes.

One pass gives each pixel the number of a neighbour before it (in rows above, in planes before) or a new one, and remembers which
numbers belong together; a second pass writes the final ones. Objects are numbered in the order of their first pixels.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from forestbridge.compiled import COMPILED, source_hash


def label_components(classes: NDArray[np.uint8], connectivity: int) -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Return the objects of an image of classes.

    Parameters
    ----------
    classes
        (Y, X) or (Z, Y, X) uint8: 0 is no object; neighbours of different values are different objects.
    connectivity
        How many axes neighbours may differ in: 1 (sides) to the number of axes (corners too).

    Returns
    -------
    labels
        int32 of the same shape: 1 … n, and 0.
    class_of
        (n + 1,) uint8: the class of each object; 0 for 0.
    """
    volume = np.ascontiguousarray(classes).reshape((1, *classes.shape) if classes.ndim == 2 else classes.shape)
    labels = np.empty(volume.shape, np.int32)
    # memory that is not touched costs nothing: most images need a few of these
    parents, class_of = np.empty(volume.size + 1, np.int32), np.empty(volume.size + 1, np.uint8)
    n = int(_label(volume, connectivity, labels, parents, class_of))
    return labels.reshape(classes.shape), class_of[: n + 1].copy()


@njit(**COMPILED)
def _root(parents, k):
    while parents[k] != k:
        parents[k] = parents[parents[k]]
        k = parents[k]
    return k


@njit(**COMPILED)
def _join(parents, a, b):
    """Make two numbers one object; the smaller root stays, so that it is the number of the first pixel."""
    a, b = _root(parents, a), _root(parents, b)
    if a < b:
        parents[b] = a
        return a
    parents[a] = b
    return b


@njit(**COMPILED)
def _label_row(row, above, out, out_above, corners, parents, class_of, n):
    """Give numbers to the row of a plane from the row above it; neither has a plane before."""
    width = len(row)
    for x in range(width):
        value = row[x]
        if value == 0:
            out[x] = 0
            continue
        left = x > 0 and row[x - 1] == value
        if above[x] == value:
            found = out_above[x]
            if left and not corners and out[x - 1] != found:
                found = _join(parents, found, out[x - 1])
        elif corners and x + 1 < width and above[x + 1] == value:
            found = out_above[x + 1]
            if left:
                if out[x - 1] != found:
                    found = _join(parents, found, out[x - 1])
            elif x > 0 and above[x - 1] == value and out_above[x - 1] != found:
                found = _join(parents, found, out_above[x - 1])
        elif left:
            found = out[x - 1]
        elif corners and x > 0 and above[x - 1] == value:
            found = out_above[x - 1]
        else:
            n += 1
            parents[n] = n
            class_of[n] = value
            found = n
        out[x] = found
    return n


@njit(**COMPILED)
def _label_row_of_volume(volume, z, y, connectivity, labels, parents, class_of, n):
    """Give numbers to a row from the rows above it and in the plane before."""
    height, width = volume.shape[1], volume.shape[2]
    for x in range(width):
        value = volume[z, y, x]
        if value == 0:
            labels[z, y, x] = 0
            continue
        found = 0
        if connectivity == 3 and volume[z - 1, y, x] == value:
            labels[z, y, x] = labels[z - 1, y, x]  # all neighbours before this pixel touch that one, too
            continue
        for dz in range(-1, 1):
            for dy in range(-1, 1 if dz == 0 else 2):
                for dx in range(-1, 0 if dz == 0 and dy == 0 else 2):
                    if abs(dz) + abs(dy) + abs(dx) > connectivity:
                        continue
                    yy, xx = y + dy, x + dx
                    if yy < 0 or xx < 0 or yy >= height or xx >= width or volume[z + dz, yy, xx] != value:
                        continue
                    other = labels[z + dz, yy, xx]
                    if found == 0:
                        found = other
                    elif other != found:
                        found = _join(parents, found, other)
        if found == 0:
            n += 1
            parents[n] = n
            class_of[n] = value
            found = n
        labels[z, y, x] = found
    return n


@njit(**COMPILED)
def _finish(labels, parents, class_of, n):
    """Replace numbers by final ones without gaps, and return how many there are."""
    count = 0
    for k in range(1, n + 1):
        if parents[k] == k:
            count += 1
            parents[k] = count
            class_of[count] = class_of[k]
        else:
            parents[k] = parents[parents[k]]  # the root is smaller, and has its final number already
    parents[0] = 0
    flat = labels.ravel()
    for i in range(np.uint64(flat.size)):
        flat[i] = parents[flat[i]]
    class_of[0] = 0
    return count


@njit(**COMPILED)
def _flatten(parents, n):
    """Let every number point to its root, whose own number is smaller."""
    for k in range(1, n + 1):
        parents[k] = parents[parents[k]]


def _cached(sources: str) -> Callable[..., Any]:
    @njit(cache=True, **COMPILED)
    def label(volume, connectivity, labels, parents, class_of):
        """Fill `labels`, and `class_of` by object; return the number of objects."""
        assert sources  # part of the cache's key
        depth, height, width = volume.shape
        nothing, no_labels = np.zeros(width, volume.dtype), np.zeros(width, np.int32)
        n = 0
        for z in range(depth):
            for y in range(height):
                if z > 0:
                    n = _label_row_of_volume(volume, z, y, connectivity, labels, parents, class_of, n)
                    continue
                above = volume[z, y - 1] if y > 0 else nothing
                out_above = labels[z, y - 1] if y > 0 else no_labels
                n = _label_row(volume[z, y], above, labels[z, y], out_above, connectivity > 1, parents, class_of, n)
        _flatten(parents, n)
        return _finish(labels, parents, class_of, n)

    return label


_label = _cached(source_hash(__file__))
