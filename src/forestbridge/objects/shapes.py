"""Shapes of objects: the sorted pixels of a plane in; outline lengths, axes, convex hulls and their diameters out.

The definitions are those of `skimage.measure.regionprops`, for all objects of a plane at once.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.objects.sums import Pixels, Sums

AXIS_FACTOR = {2: 4.0, 3: 20**0.5}
"""Length of an axis of the ellipse or ellipsoid with the same second moments, in standard deviations along it."""


class Axes(NamedTuple):
    """The ellipse (ellipsoid) with the same second moments.

    Attributes
    ----------
    lengths
        (N, D) float64: full lengths, longest first.
    orientation
        (N,) float64, of planes: angle from the y axis to the longest axis, in radians, -π/2 to π/2, counter-clockwise.
    """

    lengths: NDArray[np.float64]
    orientation: NDArray[np.float64]


def axes_of(sums: Sums, *, dimensions: int, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Axes:
    """Return the axes of each object.

    Parameters
    ----------
    sums
        Of whole objects.
    dimensions
        2 or 3.
    spacing
        Size of a pixel along z, y, x.
    """
    size = np.array(spacing)[3 - dimensions :]
    covariance = sums.scatter[:, 3 - dimensions :, 3 - dimensions :] / sums.count[:, None, None]  # (N, D, D)
    covariance = covariance * size[:, None] * size[None, :]
    if dimensions == 3:
        variances = np.linalg.eigvalsh(covariance)[:, ::-1]
        return Axes(AXIS_FACTOR[3] * np.sqrt(np.maximum(variances, 0)), np.full(len(sums.ids), np.nan))
    yy, xy, xx = covariance[:, 0, 0], covariance[:, 0, 1], covariance[:, 1, 1]
    half, apart = (yy + xx) / 2, np.hypot((yy - xx) / 2, xy)
    variances = np.stack([half + apart, half - apart], axis=1)
    even = np.abs(yy - xx) <= 1e-12 * (yy + xx)
    orientation = np.where(even, np.where(xy > 0, np.pi / 4, -np.pi / 4), 0.5 * np.arctan2(2 * xy, yy - xx))
    return Axes(AXIS_FACTOR[2] * np.sqrt(np.maximum(variances, 0)), orientation)


def perimeters(labels: NDArray[np.integer], pixels: Pixels) -> NDArray[np.float64]:
    """Return (N,) lengths of the outlines in pixels, through the centres of the border pixels; 0 for an object of one pixel.

    Parameters
    ----------
    labels
        (Y, X).
    pixels
        Of the same plane.

    References
    ----------
    Benkrid and Crookes 2000, "Design and FPGA implementation of a perimeter estimator".
    """
    width = labels.shape[1] + 2
    around = np.pad(labels, 1).ravel()
    place = (pixels.y.astype(np.int64) + 1) * width + pixels.x + 1
    sides, corners = (-width, -1, 1, width), (-width - 1, -width + 1, width - 1, width + 1)
    own = around[place]
    inner = np.ones(len(place), bool)
    for step in sides:
        inner &= around[place + step] == own
    place, own, owner = place[~inner], own[~inner], pixels.owner[~inner]
    border = np.zeros_like(around)
    border[place] = own
    n_sides, n_corners = (sum((border[place + s] == own).astype(np.uint8) for s in steps) for steps in (sides, corners))
    weights = np.zeros(50)
    weights[[5, 7, 15, 17, 25, 27]] = 1
    weights[[21, 33]] = np.sqrt(2)
    weights[[13, 23]] = (1 + np.sqrt(2)) / 2
    lengths = weights[1 + 2 * n_sides + 10 * n_corners]
    return np.bincount(owner, lengths, minlength=len(pixels.ids)).astype(np.float64)


def hulls(pixels: Pixels) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the convex hulls of objects.

    Returns
    -------
    area
        (N,) int64: pixels whose centres lie inside or on the hull.
    feret
        (N,) float64: largest distance between two points on the outline of these pixels.
    """
    from forestbridge.objects.hulls import hull_sizes  # compiled; numba takes a while to import

    if not len(pixels.ids):
        return np.zeros(0, np.int64), np.zeros(0)
    new_row = np.ones(len(pixels.y), bool)
    new_row[1:] = (pixels.y[1:] != pixels.y[:-1]) | (pixels.owner[1:] != pixels.owner[:-1])
    starts = np.flatnonzero(new_row)  # of the rows of each object
    ends = np.append(starts[1:], len(pixels.y)) - 1
    bounds = np.append(np.searchsorted(starts, pixels.start), len(starts))  # rows of object k: bounds[k] to bounds[k+1]
    rows, left, right = (v.astype(np.int64) for v in (pixels.y[starts], pixels.x[starts], pixels.x[ends]))
    return hull_sizes(rows, left, right, bounds)
