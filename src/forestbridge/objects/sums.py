"""Sums over the pixels of each object: one plane in, and the sums of planes put together to those of a volume.

The pixels are sorted by object once; then every sum, smallest and largest value is one pass over them.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Intensities(NamedTuple):
    """Values of one channel in each object: (N,) float64; `squares` is the sum of squared distances from the mean."""

    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]


class Sums(NamedTuple):
    """What is known of N objects.

    Attributes
    ----------
    ids
        (N,) int64, ascending.
    count
        (N,) int64: pixels.
    centre
        (N, 3) float64: mean of (z, y, x).
    scatter
        (N, 3, 3) float64: sum of the products of the distances from the centre.
    first, stop
        (N, 3) int64: bounding box as (z, y, x); `stop` is the first that lies beyond.
    channels, shares
        Of each channel of the image, and of each class's probabilities.
    """

    ids: NDArray[np.int64]
    count: NDArray[np.int64]
    centre: NDArray[np.float64]
    scatter: NDArray[np.float64]
    first: NDArray[np.int64]
    stop: NDArray[np.int64]
    channels: tuple[Intensities, ...]
    shares: tuple[Intensities, ...]


class Pixels(NamedTuple):
    """The pixels of the objects of a plane of (height, width), sorted by object and then by place.

    Attributes
    ----------
    ids
        (N,) int64, ascending.
    start, count
        (N,) int64: where the pixels of each object begin, and how many they are.
    y, x
        (P,) int32.
    place
        (P,) int64: index into the plane as a vector.
    owner
        (P,) int64: which of the N objects.
    """

    ids: NDArray[np.int64]
    start: NDArray[np.int64]
    count: NDArray[np.int64]
    y: NDArray[np.int32]
    x: NDArray[np.int32]
    place: NDArray[np.int64]
    owner: NDArray[np.int64]


def sorted_pixels(labels: NDArray[np.integer]) -> Pixels:
    """Sort the pixels of a (Y, X) label plane by object."""
    flat = labels.ravel()
    place = np.flatnonzero(flat)
    own = flat[place]
    for shift in range(0, 8 * own.dtype.itemsize, 16):  # numpy sorts 16 bits in linear time, and more not
        place = place[np.argsort((flat[place] >> shift).astype(np.uint16), kind="stable")]
    own = flat[place]
    start = np.flatnonzero(np.concatenate([own[:1] > 0, own[1:] != own[:-1]]))
    count = np.diff(start, append=len(own))
    y, x = np.divmod(place.astype(np.int32) if flat.size < 2**31 else place, np.int32(labels.shape[1]))
    return Pixels(own[start].astype(np.int64), start, count, y, x, place, np.repeat(np.arange(len(start)), count))


def sums_of_plane(pixels: Pixels, z: int, channels: list[NDArray], shares: list[NDArray]) -> Sums:
    """Sum over the pixels of a plane.

    Parameters
    ----------
    pixels
        As `sorted_pixels` gives them.
    z
        Which plane.
    channels, shares
        (Y, X) planes of the image's channels, and of the classes' probabilities.
    """
    n = len(pixels.ids)
    centre, scatter = np.zeros((n, 3)), np.zeros((n, 3, 3))
    first, stop = np.zeros((n, 3), np.int64), np.zeros((n, 3), np.int64)
    centre[:, 0], first[:, 0], stop[:, 0] = z, z, z + 1
    if n:
        from_centre = []
        for axis, places in ((1, pixels.y), (2, pixels.x)):
            centre[:, axis] = np.add.reduceat(places, pixels.start, dtype=np.int64) / pixels.count
            first[:, axis] = np.minimum.reduceat(places, pixels.start)
            stop[:, axis] = np.maximum.reduceat(places, pixels.start) + 1
            from_centre.append(places - centre[pixels.owner, axis])
        for a, b in ((0, 0), (0, 1), (1, 1)):
            products = np.add.reduceat(from_centre[a] * from_centre[b], pixels.start)
            scatter[:, a + 1, b + 1] = scatter[:, b + 1, a + 1] = products
    intensities, probabilities = (tuple(_intensities(pixels, c) for c in planes) for planes in (channels, shares))
    return Sums(pixels.ids, pixels.count, centre, scatter, first, stop, intensities, probabilities)


def _intensities(pixels: Pixels, plane: NDArray) -> Intensities:
    if not len(pixels.ids):
        return Intensities(*(np.zeros(0) for _ in range(4)))
    values = plane.ravel()[pixels.place].astype(np.float64)
    total = np.add.reduceat(values, pixels.start)
    low, high = np.minimum.reduceat(values, pixels.start), np.maximum.reduceat(values, pixels.start)
    values -= (total / pixels.count)[pixels.owner]
    values *= values
    return Intensities(total, np.add.reduceat(values, pixels.start), low, high)


def put_together(a: Sums, b: Sums) -> Sums:
    """Return the sums over the pixels of both; those of objects in both are joined.

    References
    ----------
    Chan, Golub and LeVeque 1983, doi:10.1080/00031305.1983.10483115: sums of squares that keep their digits.
    """
    ids = np.union1d(a.ids, b.ids)
    at_a, at_b = np.searchsorted(ids, a.ids), np.searchsorted(ids, b.ids)

    def spread(of_a: NDArray, of_b: NDArray, empty: float = 0) -> tuple[NDArray, NDArray]:
        wide = [np.full((len(ids), *v.shape[1:]), empty, v.dtype) for v in (of_a, of_b)]
        wide[0][at_a], wide[1][at_b] = of_a, of_b
        return wide[0], wide[1]

    n_a, n_b = spread(a.count, b.count)
    n = n_a + n_b
    centre_a, centre_b = spread(a.centre, b.centre)
    apart = centre_b - centre_a
    weight = n_a * n_b / n  # 0 where an object is in one of them only
    scatter = sum(spread(a.scatter, b.scatter)) + weight[:, None, None] * apart[:, :, None] * apart[:, None, :]
    largest = np.iinfo(np.int64).max
    return Sums(
        ids,
        n,
        (n_a[:, None] * centre_a + n_b[:, None] * centre_b) / n[:, None],
        scatter,
        np.minimum(*spread(a.first, b.first, largest)),
        np.maximum(*spread(a.stop, b.stop)),
        tuple(_joined(x, y, n_a, n_b, spread) for x, y in zip(a.channels, b.channels, strict=True)),
        tuple(_joined(x, y, n_a, n_b, spread) for x, y in zip(a.shares, b.shares, strict=True)),
    )


def _joined(a: Intensities, b: Intensities, n_a: NDArray, n_b: NDArray, spread) -> Intensities:
    total_a, total_b = spread(a.total, b.total)
    apart = total_b / np.maximum(n_b, 1) - total_a / np.maximum(n_a, 1)  # counts only where both have pixels
    squares = sum(spread(a.squares, b.squares)) + n_a * n_b / (n_a + n_b) * apart**2
    low, high = np.minimum(*spread(a.low, b.low, np.inf)), np.maximum(*spread(a.high, b.high, -np.inf))
    return Intensities(total_a + total_b, squares, low, high)
