"""Objects of one frame after another: which of them are the same.

An object keeps the number of the object of the frame before, of its class, with which it shares most: the largest intersection over
union. Each number is given once: of the parts of an object that split, the one that overlaps most keeps its number and the others get
new ones; an object that others merged into keeps the number of the one that overlaps most, and the other numbers end. Without any
overlap an object is new. Only the frame before counts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Overlap(NamedTuple):
    """Pairs of objects that share pixels: numbers before and now, and intersection over union."""

    before: NDArray[np.int64]
    now: NDArray[np.int64]
    iou: NDArray[np.float64]


def overlaps(before: NDArray[np.integer], now: NDArray[np.integer]) -> Overlap:
    """Return the pairs of objects of two label images of one shape that share pixels."""
    both = (before > 0) & (now > 0)
    width = int(now.max(initial=0)) + 1
    pairs, shared = np.unique(before[both].astype(np.int64) * width + now[both], return_counts=True)
    a, b = pairs // width, pairs % width
    numbers, areas = np.unique(before, return_counts=True)
    area_before = areas[np.searchsorted(numbers, a)]
    area_now = np.bincount(now.ravel(), minlength=width)[b]
    return Overlap(a, b, shared / (area_before + area_now - shared))


def continued(
    before: NDArray[np.integer],
    classes_before: Sequence[int],
    now: NDArray[np.integer],
    classes_now: NDArray[np.uint8],
) -> NDArray[np.int64]:
    """Return the id of each object of a frame.

    Parameters
    ----------
    before
        Ids of the frame before.
    classes_before
        Class of each id that was given so far: 1, 2, …
    now
        Objects 1 … n of this frame, of the same shape.
    classes_now
        (n + 1,) their classes.

    Returns
    -------
    ids
        (n + 1,) int64: the id of each object, 0 for 0; new objects get the next ones.
    """
    ids = np.zeros(len(classes_now), np.int64)
    taken: set[int] = set()
    pairs = overlaps(before, now)
    for i in np.lexsort((pairs.now, pairs.before, -pairs.iou)):
        a, b = int(pairs.before[i]), int(pairs.now[i])
        if a not in taken and not ids[b] and classes_before[a - 1] == classes_now[b]:
            ids[b] = a
            taken.add(a)
    new = np.flatnonzero(ids[1:] == 0) + 1
    ids[new] = len(classes_before) + np.arange(1, len(new) + 1)
    return ids
