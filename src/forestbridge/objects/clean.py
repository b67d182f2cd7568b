"""Operators that clean classes: classes of one unit in, cleaner ones out.

Classes are numbers: 0 for what is free (background), 1 … K for the classes that are cleaned, and `OTHER` for pixels that stay as they
are.
"""

import re
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError
from forestbridge.objects.components import label_components
from forestbridge.objects.smoothing import mean_curvature

OTHER = 255
"""Pixels of classes that are not cleaned: nothing grows into them."""

MAX_CLEANED = 254
"""Most classes that can be cleaned at once."""

BETWEEN = 255 / 4
"""A pixel that no class claims, and where the second largest smoothed value is at least this, lies between two classes."""


class Area(NamedTuple):
    """A size of regions: in pixels ("px"), percent of the largest region of the class ("%"), or "um2" and "um3"."""

    value: float
    unit: str = "px"

    def pixels(
        self, largest: NDArray[np.int64], pixel_size: Mapping[str, float], n_axes: int, name: str
    ) -> NDArray[np.float64]:
        """Return the size in pixels for each class, given the largest region of each.

        Raises
        ------
        ImageError
            If it is physical and the pixel size is not known.
        ValueError
            If it is an area and regions are volumes, or the other way round.
        """
        if self.unit == "%":
            return largest * self.value / 100
        if self.unit == "px":
            return np.full(len(largest), float(self.value))
        if self.unit != (wanted := f"um{n_axes}"):
            raise ValueError(
                f"{name}: expected a size in {wanted}, since regions have {n_axes} axes, found {self}; give {wanted}, or "
                f"{'work plane by plane' if n_axes == 3 else 'a size in pixels'}"
            )
        axes = "zyx"[-n_axes:]
        if missing := [a for a in axes if a not in pixel_size]:
            raise ImageError(
                f"{name}: expected a pixel size along {', '.join(axes)} for {self}, found none for {', '.join(missing)}; "
                "give the size in pixels"
            )
        return np.full(len(largest), self.value / float(np.prod([pixel_size[a] for a in axes])))

    def __str__(self) -> str:
        return f"{self.value:g}{'' if self.unit == 'px' else self.unit}"


def area_of(text: str | float) -> Area:
    """Return the size that is written as "50", "2%", "10um2" or "10um3".

    Raises
    ------
    ValueError
        If it is written in another way.
    """
    found = re.fullmatch(r"\s*([0-9.]+(?:e[+-]?[0-9]+)?)\s*(px|%|[uµμ]m[23²³])?\s*", str(text), re.IGNORECASE)
    try:
        value = float(found[1]) if found else -1.0
    except ValueError:
        value = -1.0
    unit = (found[2] or "px").lower() if found else ""
    unit = unit.replace("µ", "u").replace("μ", "u").replace("²", "2").replace("³", "3")
    if not found or not 0 <= value < float("inf") or (unit == "%" and value > 100):
        raise ValueError(
            f"expected a size such as 50 (pixels), 2% (of the largest region), 10um2 or 10um3, found {str(text)!r}; write one of these"
        )
    return Area(value, unit)


def smoothed(classes: NDArray[np.uint8], iterations: int) -> NDArray[np.uint8]:
    """Return classes with smooth borders; volumes are smoothed plane by plane.

    The mask of each class is closed, smoothed by mean curvature, and thresholded after Otsu. Where several classes claim a pixel, that
    with the largest smoothed value has it, whatever their order. Classes that are empty or everywhere stay so.
    """
    if classes.ndim == 3:
        return np.stack([smoothed(plane, iterations) for plane in classes])
    best = np.zeros(classes.shape, np.float32)
    second = np.zeros(classes.shape, np.float32)
    largest, claimed = np.zeros(classes.shape, np.uint8), np.zeros(classes.shape, np.uint8)
    claim = np.zeros(classes.shape, np.float32)
    for k in sorted(set(np.unique(classes).tolist()) - {0, OTHER}):
        values, mask = smooth_mask(classes == k, iterations)
        ahead = mask & (values > claim)
        claimed[ahead], claim[ahead] = k, values[ahead]
        better = values > best
        second = np.where(better, best, np.maximum(second, values))
        largest[better], best[better] = k, values[better]
    between = (claimed == 0) & (second >= BETWEEN) & (classes > 0)
    result = np.where(between, largest, claimed)
    result[classes == OTHER] = OTHER
    return result


def smooth_mask(mask: NDArray[np.bool_], iterations: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return a closed mask of 0 and 255 after mean curvature smoothing, and the mask that it becomes.

    Parameters
    ----------
    mask
        (Y, X).
    """
    from skimage.filters import threshold_otsu

    closed = _closed(mask)
    values = mean_curvature(closed * np.float32(255), iterations)
    low, high = values.min(), values.max()
    if low == high:
        return values, closed
    grey = ((values - low) * (255 / (high - low))).astype(np.uint8)
    return values, grey > threshold_otsu(grey)


def _closed(mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return a mask that was dilated twice, then eroded twice, by a cross; beyond the image nothing counts."""
    for _ in range(2):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    for _ in range(2):
        left = mask.copy()
        left[1:] &= mask[:-1]
        left[:-1] &= mask[1:]
        left[:, 1:] &= mask[:, :-1]
        left[:, :-1] &= mask[:, 1:]
        mask = left
    return mask


def majority(classes: NDArray[np.uint8], radius: int) -> NDArray[np.uint8]:
    """Return for each pixel the most frequent class in the square (cube) around it, its own where several are; `OTHER` does not count."""
    from scipy import ndimage

    most = np.zeros(classes.shape, np.int32)
    result = np.zeros_like(classes)
    window = np.ones(2 * radius + 1, np.int32)
    for k in sorted(set(np.unique(classes).tolist()) - {OTHER}):
        own = classes == k
        count = own.astype(np.int32)
        for axis in range(classes.ndim):
            count = ndimage.correlate1d(count, window, axis, mode="constant")
        count = 2 * count + own  # of equal ones the pixel's own class
        better = count > most
        result[better], most[better] = k, count[better]
    result[classes == OTHER] = OTHER
    return result


def sized(
    classes: NDArray[np.uint8],
    smallest: Area | None,
    largest: Area | None,
    pixel_size: Mapping[str, float],
    name: str,
) -> NDArray[np.uint8]:
    """Return classes without regions below the smallest size or above the largest one; pixels that touch at corners are one region.

    Raises
    ------
    ImageError, ValueError
        As `Area.pixels`.
    """
    regions, class_of = label_components(np.where(classes == OTHER, np.uint8(0), classes), classes.ndim)
    areas = np.bincount(regions.ravel(), minlength=len(class_of))
    biggest = np.zeros(256, np.int64)
    np.maximum.at(biggest, class_of[1:], areas[1:])
    drop = np.zeros(len(class_of), bool)
    if smallest is not None:
        drop |= areas < smallest.pixels(biggest, pixel_size, classes.ndim, name)[class_of]
    if largest is not None:
        drop |= areas > largest.pixels(biggest, pixel_size, classes.ndim, name)[class_of]
    drop[0] = False
    return np.where(drop[regions], np.uint8(0), classes)


def filled(
    classes: NDArray[np.uint8], largest: Area | None, pixel_size: Mapping[str, float], name: str
) -> NDArray[np.uint8]:
    """Return classes with holes filled: free regions that touch neither the end of the image nor a class that is not cleaned.

    A hole becomes the class that it has the longest border with, of equal ones the first. `largest` leaves larger ones as they are.

    Raises
    ------
    ImageError, ValueError
        As `Area.pixels`.
    """
    holes, _ = label_components((classes == 0).astype(np.uint8), 1)
    n = int(holes.max(initial=0)) + 1
    borders = np.zeros((n, 256), np.int64)
    is_open = np.zeros(n, bool)
    for axis in range(classes.ndim):
        h, c = np.moveaxis(holes, axis, 0), np.moveaxis(classes, axis, 0)
        is_open[np.unique(h[[0, -1]])] = True
        for hole, other in ((h[:-1], c[1:]), (h[1:], c[:-1])):
            at = (hole > 0) & (other > 0)
            borders += np.bincount(hole[at].astype(np.int64) * 256 + other[at], minlength=n * 256).reshape(n, 256)
    is_open |= borders[:, OTHER] > 0
    areas = np.bincount(holes.ravel(), minlength=n)
    if largest is not None:
        one = np.array([areas[~is_open][1:].max(initial=0)])
        is_open |= areas > largest.pixels(one, pixel_size, classes.ndim, name)[0]
    is_open[0] = True
    into = np.where(is_open, 0, borders[:, :OTHER].argmax(axis=1)).astype(np.uint8)
    return np.where(holes > 0, into[holes], classes)
