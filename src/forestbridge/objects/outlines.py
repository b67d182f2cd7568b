"""Outlines of objects: a label plane in; for each object its polygons, along the edges of its pixels, out.

Pixel (y, x) covers x ≤ X < x + 1 and y ≤ Y < y + 1, so that corners are whole numbers and a polygon covers exactly the pixels whose
centres lie inside. Pixels that touch at a corner only are apart; so rings never cross or touch themselves, but rings may touch each
other at a corner. Seen with y down, an outer ring runs clockwise (positive area) and a hole counter-clockwise::

        0       1       2  x
      0 +---→---+               edge 0: above a pixel        to the right
        ↑ pixel ↓               edge 1: right of it          down
      1 +---←---+               edge 2: below it             to the left
        y                       edge 3: left of it           up
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Ring = NDArray[np.int64]
"""(n, 2) corners as (x, y), the first one not repeated; neighbouring edges are at right angles."""


class Outline(NamedTuple):
    """An object: its number, and for each part of it the outer ring followed by its holes."""

    id: int
    polygons: list[list[Ring]]


def outlines(labels: NDArray[np.integer]) -> Iterator[Outline]:
    """Yield the outline of each object of a (Y, X) label plane, by number."""
    from forestbridge.objects.rings import rings_of  # compiled; numba takes a while to import

    width = labels.shape[1] + 1  # vertices in a row
    owner, start, stop = _edges(labels)
    points, begins, owners = rings_of(owner, start, stop, width)
    ends = np.append(begins[1:], len(points))
    by_owner = np.argsort(owners, kind="stable")
    groups = np.split(by_owner, np.flatnonzero(np.diff(owners[by_owner])) + 1) if len(by_owner) else []
    for group in groups:
        rings = [points[begins[k] : ends[k]] for k in group]
        yield Outline(int(owners[group[0]]), _polygons(rings))


def _edges(labels: NDArray[np.integer]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return object, first and last vertex of each edge between an object and what is not it; vertices count row by row.

    Sorted by object, then first vertex: so the edges that go on from a vertex stand together.
    """
    width = labels.shape[1] + 1
    around = np.pad(labels, 1)
    owners, starts, stops = [], [], []
    # neighbour of a pixel, and first and last corner of the edge towards it: (y, x) each
    sides = (((-1, 0), (0, 0), (0, 1)), ((0, 1), (0, 1), (1, 1)), ((1, 0), (1, 1), (1, 0)), ((0, -1), (1, 0), (0, 0)))
    for (dy, dx), first, last in sides:
        beside = around[1 + dy : around.shape[0] - 1 + dy, 1 + dx : around.shape[1] - 1 + dx]
        y, x = np.nonzero((labels != 0) & (labels != beside))
        owners.append(labels[y, x])
        starts.append((y + first[0]) * width + x + first[1])
        stops.append((y + last[0]) * width + x + last[1])
    owner, start, stop = (np.concatenate(v).astype(np.int64) for v in (owners, starts, stops))
    order = np.lexsort((start, owner))
    return owner[order], start[order], stop[order]


def _polygons(rings: list[Ring]) -> list[list[Ring]]:
    """Return outer rings with the holes inside them."""
    if len(rings) == 1:
        return [rings]
    outer = [ring for ring in rings if _area(ring) > 0]
    holes = [ring for ring in rings if _area(ring) < 0]
    polygons = [[ring] for ring in outer]
    areas = [_area(ring) for ring in outer]
    for hole in holes:
        x, y = _beside(hole)
        around = [k for k, ring in enumerate(outer) if len(outer) == 1 or _contains(ring, x, y)]
        polygons[min(around, key=areas.__getitem__)].append(hole)
    return polygons


def _area(ring: Ring) -> float:
    x, y = ring[:, 0], ring[:, 1]
    return float((x * np.roll(y, -1) - np.roll(x, -1) * y).sum()) / 2


def _beside(hole: Ring) -> tuple[float, float]:
    """Return the centre of a pixel of the object next to a hole: to the right of the way along the ring."""
    (x0, y0), (x1, y1) = hole[0], hole[1]
    dx, dy = np.sign(x1 - x0), np.sign(y1 - y0)
    return x0 + dx / 2 - dy / 2, y0 + dy / 2 + dx / 2


def _contains(ring: Ring, x: float, y: float) -> bool:
    """Whether a point that lies on no edge is inside a ring, by the crossings to its left."""
    a, b = ring, np.roll(ring, -1, axis=0)
    crosses = (a[:, 1] > y) != (b[:, 1] > y)  # only vertical edges do
    return bool(np.count_nonzero(crosses & (a[:, 0] < x)) % 2)
