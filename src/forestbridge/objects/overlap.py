"""How two label images lie on each other: planes of both in; which values meet, and on how many pixels, out."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

COUNTED = 2**22
"""Pairs of values up to which all possible ones are counted; of more, those that occur are sorted."""


class Overlap(NamedTuple):
    """Pixels by the pair of values that they have in two label images; 0 is a value, too.

    Attributes
    ----------
    a, b
        (P,) int64: values of the first and the second image, ascending by a, then b; each pair once.
    count
        (P,) int64: pixels.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    count: NDArray[np.int64]

    def totals(self) -> tuple["Counts", "Counts"]:
        """Return the pixels of each value of either image."""
        return _by_value(self.a, self.count), _by_value(self.b, self.count)


class Counts(NamedTuple):
    """(N,) values, ascending, and (N,) numbers of pixels."""

    values: NDArray[np.int64]
    pixels: NDArray[np.int64]

    def of(self, values: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the pixels of each of some values; 0 for one that does not occur."""
        if not len(self.values):
            return np.zeros(len(values), np.int64)
        at = np.searchsorted(self.values, values).clip(max=len(self.values) - 1)
        return np.where(self.values[at] == values, self.pixels[at], 0)


NOTHING = Overlap(*(np.zeros(0, np.int64) for _ in range(3)))
"""No pixel."""


def overlap_of(a: NDArray[np.integer], b: NDArray[np.integer]) -> Overlap:
    """Count the pairs of values of two arrays of the same shape, values from 0 to 2^32 - 1."""
    if not a.size:
        return NOTHING
    width = int(b.max()) + 1
    if (int(a.max()) + 1) * width <= COUNTED:
        counts = np.bincount((a.astype(np.int64) * width + b).ravel())
        keys = np.flatnonzero(counts)
        first, second = np.divmod(keys, width)
        return Overlap(first, second, counts[keys])
    keys, counts = np.unique((a.astype(np.uint64) << 32 | b.astype(np.uint64)).ravel(), return_counts=True)
    return Overlap((keys >> 32).astype(np.int64), (keys & (2**32 - 1)).astype(np.int64), counts)


def added(first: Overlap, second: Overlap) -> Overlap:
    """Return the pixels of both."""
    a, b = np.concatenate([first.a, second.a]), np.concatenate([first.b, second.b])
    keys, index = np.unique(a.astype(np.uint64) << 32 | b.astype(np.uint64), return_inverse=True)
    count = np.zeros(len(keys), np.int64)
    np.add.at(count, index, np.concatenate([first.count, second.count]))
    return Overlap((keys >> 32).astype(np.int64), (keys & (2**32 - 1)).astype(np.int64), count)


def with_values(overlap: Overlap, *, a: bool = True, b: bool = True) -> Overlap:
    """Return the pixels where the first (second) image has a value other than 0."""
    kept = np.ones(len(overlap.count), bool)
    if a:
        kept &= overlap.a > 0
    if b:
        kept &= overlap.b > 0
    return Overlap(overlap.a[kept], overlap.b[kept], overlap.count[kept])


def _by_value(values: NDArray[np.int64], pixels: NDArray[np.int64]) -> Counts:
    found, index = np.unique(values, return_inverse=True)
    total = np.zeros(len(found), np.int64)
    np.add.at(total, index, pixels)
    return Counts(found, total)
