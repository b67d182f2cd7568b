"""`Shape`: an annotation as geometry; and the pixels it covers.

All coordinates are (x, y) in pixels with the origin at the upper left corner of the image, so that pixel (0, 0) covers
0 ≤ x < 1, 0 ≤ y < 1 and its centre lies at (0.5, 0.5). An area covers the pixels whose centres lie inside it (even-odd
rule, so
that inner rings are holes).
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import LabelError
from forestbridge.labels.scribbles import MAX_PIXELS


@dataclass(frozen=True, eq=False)
class Shape:
    """One annotation.

    Attributes
    ----------
    kind
        "area": `rings` are its outlines. "ellipse": `rings` holds two opposite corners of the bounding box. "line":
        each of `rings` is a polyline, drawn one pixel wide, or `width` pixels with round ends. "points": each point is
        one pixel.
    rings
        (n, 2) float64 arrays of (x, y).
    label
        Class name, or label value.
    place
        (t, z), or None where the file does not say.
    width
        Of a line, in pixels.
    colour
        "#rrggbb", None where the file does not say.
    where
        Names the annotation in messages.
    first_plane
        Whether no `place` means the first plane (QuPath), and not all of them (ImageJ).
    """

    kind: Literal["area", "ellipse", "line", "points"]
    rings: tuple[NDArray[np.float64], ...]
    label: str | int
    place: tuple[int, int] | None
    where: str
    width: float = 1.0
    colour: str | None = None
    first_plane: bool = False


def shape_pixels(shape: Shape, height: int, width: int) -> NDArray[np.int64]:
    """Return the (n, 2) pixels (y, x) of a plane of height × width that a shape covers, as far as it lies inside.

    Raises
    ------
    LabelError
        If a coordinate is not finite, or the shape lies outside the image as a whole, or is too large.
    """
    rings = [np.asarray(ring, np.float64).reshape(-1, 2) for ring in shape.rings]
    if not rings or not all(np.isfinite(ring).all() and len(ring) for ring in rings):
        raise LabelError(
            f"{shape.where}: expected finite coordinates, found NaN, infinite or none; draw it again or delete it"
        )
    corners = np.concatenate(rings)
    (x0, y0), (x1, y1) = corners.min(axis=0), corners.max(axis=0)
    if x0 > width or y0 > height or x1 < 0 or y1 < 0:
        raise LabelError(
            f"{shape.where}: expected it inside the image of {width} × {height} pixels (x × y), found it at "
            f"x={x0:g}..{x1:g} y={y0:g}..{y1:g}; check that the annotations belong to this image and to its full "
            "resolution"
        )
    match shape.kind:
        case "area":
            pixels = _fill(rings, height, width, shape.where)
        case "ellipse":
            pixels = _fill_ellipse(x0, y0, x1, y1, height, width, shape.where)
        case "line":
            parts = [_stroke(ring, shape.width, height, width, shape.where) for ring in rings]
            pixels = np.unique(np.concatenate(parts), axis=0)
        case "points":
            cells = np.floor(corners[:, ::-1])  # (n, 2) as (y, x)
            inside = ((cells >= 0) & (cells < [height, width])).all(axis=1)
            pixels = np.unique(cells[inside].astype(np.int64), axis=0)
    return pixels


def _fill(rings: list[NDArray[np.float64]], height: int, width: int, where: str) -> NDArray[np.int64]:
    """Return the pixels whose centres lie inside: those between the first and second, third and fourth, … crossing."""
    a = np.concatenate(rings)  # (E, 2) start of each edge
    b = np.concatenate([np.roll(ring, -1, axis=0) for ring in rings])
    low, high = np.minimum(a[:, 1], b[:, 1]), np.maximum(a[:, 1], b[:, 1])
    # half-open, so that a vertex on a row's centre counts for one of its two edges
    first, stop = (np.clip(np.ceil(y - 0.5), 0, height).astype(np.int64) for y in (low, high))
    count = stop - first
    _check_size(int(count.sum()), where)
    edge = np.repeat(np.arange(len(a)), count)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(count) - count - first, count)
    x = a[edge, 0] + (row + 0.5 - a[edge, 1]) * (b[edge, 0] - a[edge, 0]) / (b[edge, 1] - a[edge, 1])
    order = np.lexsort((x, row))
    column = np.clip(np.ceil(x[order] - 0.5), 0, width).astype(np.int64)  # first pixel with its centre beyond
    return _spans(row[order][::2], column[::2], column[1::2], where)


def _fill_ellipse(x0: float, y0: float, x1: float, y1: float, height: int, width: int, where: str) -> NDArray[np.int64]:
    """Return the pixels whose centres lie inside the ellipse of this bounding box."""
    row = np.arange(max(0, int(np.ceil(y0 - 0.5))), min(height, max(0, int(np.ceil(min(y1, height) - 0.5)))))
    up = (row + 0.5 - (y0 + y1) / 2) / max((y1 - y0) / 2, 1e-9)  # -1..1
    half = (x1 - x0) / 2 * np.sqrt(np.maximum(0, 1 - up**2))
    left, right = (np.clip(np.ceil((x0 + x1) / 2 + d - 0.5), 0, width).astype(np.int64) for d in (-half, half))
    return _spans(row, left, right, where)


def _spans(row: NDArray, left: NDArray, right: NDArray, where: str) -> NDArray[np.int64]:
    """Return the (n, 2) pixels (y, x) from left to right - 1 of each row."""
    length = right - left
    _check_size(int(length.sum()), where)
    x = np.arange(length.sum()) - np.repeat(np.cumsum(length) - length - left, length)
    return np.stack([np.repeat(row, length), x], axis=1).astype(np.int64)


def _check_size(n: int, where: str) -> None:
    if n > MAX_PIXELS:
        raise LabelError(
            f"{where}: expected at most {MAX_PIXELS} labelled pixels, found {n}; label less of the image, or crop it"
        )


def _stroke(
    line: NDArray[np.float64], width: float, image_height: int, image_width: int, where: str
) -> NDArray[np.int64]:
    """Return the pixels of a polyline: one pixel wide and 8-connected, or all with centres within width / 2 of it."""
    if width <= 1:
        cells = np.floor(line)
        parts = [
            _bresenham(cells[i], cells[min(i + 1, len(cells) - 1)], image_height, image_width)
            for i in range(max(1, len(cells) - 1))
        ]
        return np.concatenate(parts)
    parts = []
    radius = width / 2
    for point in line:
        (x0, y0), (x1, y1) = point - radius, point + radius
        parts.append(_fill_ellipse(x0, y0, x1, y1, image_height, image_width, where))
    for a, b in pairwise(line):
        length = float(np.hypot(*(b - a)))
        if length > 0:
            side = (b - a)[::-1] * [-1, 1] * radius / length
            parts.append(_fill([np.array([a + side, b + side, b - side, a - side])], image_height, image_width, where))
    return np.concatenate(parts)


def _bresenham(a: NDArray[np.float64], b: NDArray[np.float64], height: int, width: int) -> NDArray[np.int64]:
    """Return the pixels of a straight line between two pixels (x, y), the part inside the image only."""
    steps = max(1.0, float(np.abs(b - a).max()))
    low, high = 0.0, steps
    for start, delta, size in zip(a, (b - a) / steps, (width, height), strict=True):
        if delta:  # the steps at which this coordinate lies within a pixel of the image
            first, last = sorted(((-1 - start) / delta, (size - start) / delta))
            low, high = max(low, first), min(high, last)
    steps_inside = np.arange(np.ceil(low), np.floor(high) + 1)
    xy = np.rint(a + steps_inside[:, None] * (b - a) / steps)
    inside = ((xy >= 0) & (xy < [width, height])).all(axis=1)
    return xy[inside, ::-1].astype(np.int64)  # (n, 2) as (y, x)
