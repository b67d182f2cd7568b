"""Where the cells of a network's maps lie, and what they see: measured on the network alone, by sizes and by changed pixels.

Stride: pixels of the tile by cells of the map. The rest by noise in which one column (then one row) of pixels is replaced: the cells that
change are those that see it. A cell i of stride s whose pixels are s·i + a .. s·i + b is seen to change by columns from s·i + a to
s·i + b, so that over all columns of a period the changed cells tell a and b, and the centre (a + b)/2. For the centre the slightest
change counts, down to the last bit: what a deep network sees fades outwards, to one side faster than to the other.

        columns     . . . . p . . . . . .
        cells       [first changed … last changed]
"""

import logging
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_log = logging.getLogger(__name__)

Network = Callable[[NDArray[np.float32]], list[NDArray]]
"""From a (C, y, x) float32 input of the network to one (F, y, x) array per map."""

VISIBLE = 1e-5
"""Of the largest change in a map: less is below what rounding to float16 leaves, and nobody's halo must cover it."""

PERIOD = 16
"""Columns that are replaced one after the other, at least: networks that pool and enlarge again repeat themselves after 2, 4, 8 or 16."""

PROBE = 192
"""Side of the tile in pixels on which a network is measured first; where cells see all of it, the whole tile is taken."""


class MapGeometry(NamedTuple):
    """Of one map.

    Attributes
    ----------
    stride
        Pixels between neighbouring cells.
    offset
        Pixel on which the centre of the first cell lies.
    reach
        Pixels that a cell sees beyond those that it stands for, on one side; None where it sees all of a tile.
    """

    stride: int
    offset: float
    reach: int | None


def strides_of(shapes: Sequence[tuple[int, ...]], sides: Sequence[int]) -> list[int | None]:
    """Return the stride of each map whose (F, y, x) shape is that of a tile of such sides; None where there is no whole one."""
    found: list[int | None] = []
    for shape in shapes:
        ratios = {side / cells for side, cells in zip(sides, shape[1:], strict=True)}
        [ratio] = ratios if len(ratios) == 1 else [0.5]
        found.append(int(ratio) if ratio >= 1 and ratio == int(ratio) else None)
    return found


def measure_geometry(
    network: Network, *, channels: int, strides: Sequence[int], sides: Sequence[int], probe: Sequence[int]
) -> list[MapGeometry]:
    """Return the geometry of each map.

    Parameters
    ----------
    network
        Computes the same from the same, on the CPU.
    channels
        Of its input.
    strides
        Of its maps.
    sides
        Of a tile.
    probe
        Sides of a smaller tile that the network takes too, for a start; or those of a tile.

    Raises
    ------
    ValueError
        If centres along y and x differ, or a map does not answer to its pixels.
    """
    found = _measure(network, channels, strides, probe)
    if any(g.reach is None for g in found) and tuple(probe) != tuple(sides):
        found = _measure(network, channels, strides, sides)
    for k, g in enumerate(found):
        if g.reach is None:
            _log.info(
                "cells of map %d see all of a tile of %s pixels; their centres are taken as those of their patches",
                k,
                sides,
            )
    return found


def _measure(network: Network, channels: int, strides: Sequence[int], sides: Sequence[int]) -> list[MapGeometry]:
    """Return the geometry of each map, as it shows on a tile of such sides."""
    random = np.random.default_rng(0)
    noise, other = random.standard_normal((2, channels, *sides)).astype(np.float32)
    before = network(noise)
    largest = math.lcm(*strides)
    period = largest * math.ceil(PERIOD / largest)
    ends = [[_Ends(s, side // s) for side in sides] for s in strides]
    for axis, side in enumerate(sides):
        start = max(0, (side - period) // 2)
        for p in range(start, min(start + period, side)):
            changed = noise.copy()
            line = [slice(None)] * 3
            line[axis + 1] = slice(p, p + 1)
            changed[tuple(line)] = other[tuple(line)]
            for k, (a, b) in enumerate(zip(before, network(changed), strict=True)):
                difference = np.abs(b - a).max(axis=(0, 2 - axis))  # (cells,) along this axis
                ends[k][axis].add(p, difference)
            if all(e[axis].whole for e in ends):
                break
    return [_joined(s, along) for s, along in zip(strides, ends, strict=True)]


class _Ends:
    """The changed cells of one map along one axis."""

    def __init__(self, stride: int, cells: int) -> None:
        self.stride, self.cells = stride, cells
        self.reach = 0
        self.whole = False
        self._centres: list[float] = []
        self._visible_centres: list[float] = []

    def add(self, p: int, difference: NDArray[np.float32]) -> None:
        """Take note of how much each cell changed when pixel `p` did."""
        seen = np.flatnonzero(difference > VISIBLE * float(difference.max()))
        if not np.isfinite(difference).all():
            raise ValueError("expected finite values of noise around zero, found NaN or infinity")
        if not len(seen):  # where a stride is larger than a kernel some pixels are seen by no cell
            return
        first, last = int(seen[0]), int(seen[-1])
        self.whole = self.whole or first == 0 or last == self.cells - 1
        self.reach = max(self.reach, self.stride * last - p, p - (self.stride * first + self.stride - 1))
        self._visible_centres.append(p - self.stride * (first + last) / 2)
        first, last = (int(end) for end in np.flatnonzero(difference > 0)[[0, -1]])
        if first > 0 and last < self.cells - 1:
            self._centres.append(p - self.stride * (first + last) / 2)

    @property
    def is_exact(self) -> bool:
        """Whether no change, however slight, reached an end of the tile."""
        return len(self._centres) == len(self._visible_centres)

    @property
    def centre(self) -> float:
        """Of the first cell, on average; NaN where nothing changed."""
        centres = self._centres if self.is_exact else self._visible_centres
        return float(np.mean(centres)) if centres else math.nan


def _joined(stride: int, along: Sequence[_Ends]) -> MapGeometry:
    """Return what both axes say.

    Raises
    ------
    ValueError
        If they say different things, or nothing.
    """
    centres = [e.centre for e in along]
    if math.isnan(sum(centres)):
        raise ValueError("expected maps that change with the pixels, found one that does not")
    if any(e.whole for e in along):
        return MapGeometry(stride, (stride - 1) / 2, None)
    reach = max(e.reach for e in along)
    offsets = [round(2 * centre) / 2 for centre in centres]  # to half a pixel
    if offsets[0] == offsets[1]:
        return MapGeometry(stride, offsets[0], reach)
    if all(e.is_exact for e in along) or abs(centres[0] - centres[1]) > 1:
        raise ValueError(f"expected cells with the same centre along y and x, found {offsets[0]} and {offsets[1]}")
    return MapGeometry(stride, min(0.0, (stride - 1) / 2, key=lambda c: abs(c - sum(centres) / 2)), reach)


def plan_halo(sides: Sequence[int], step: int, reach: int | None) -> tuple[int, ...]:
    """Return the halo along each axis: what cells see, and at most a quarter of the tile; an eighth where they see all of it.

    Parameters
    ----------
    step
        Pixels of which it is a multiple.
    reach
        Pixels beyond the core that must be seen; None for all of a tile.
    """
    found = []
    for side in sides:
        most = max(0, (side // 4) // step * step)
        wanted = math.ceil(reach / step) * step if reach is not None else max(step, round(side / 8 / step) * step)
        found.append(min(wanted, most))
    return tuple(found)
