"""Where the pixels of a tile lie between the cells of its maps, and which channels a forest looks at."""

from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.filters import FilterBank
from forestbridge.forest import PixelForest
from forestbridge.graphs.parts import TilePart
from forestbridge.spec import MapSpec
from forestbridge.tiles import interpolation_cells


class Lines(NamedTuple):
    """For each row (or column) of pixels the cells that it lies between: (T,) int64, int64, and the float32 weight of the second."""

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    weight: NDArray[np.float32]


class MapLines(NamedTuple):
    """A map that a forest looks at.

    Attributes
    ----------
    part, index
        Number of the part, and of the map in its spec.
    channels
        The used ones, int64.
    rows, columns
        Of pixels; None for the filter bank's, whose cells are the pixels.
    """

    part: int
    index: int
    channels: NDArray[np.int64]
    rows: Lines | None
    columns: Lines | None


def used_maps(forest: PixelForest, parts: Sequence[TilePart]) -> tuple[list[MapLines], PixelForest]:
    """Return the maps with a channel that the forest looks at, at least one, and the forest over these channels alone."""
    used = forest.used_features if len(forest.used_features) else np.zeros(1, np.int64)
    lines, kept, start = [], [], 0
    for p, part in enumerate(parts):
        for n, m in enumerate(part.spec.maps):
            channels = used[(used >= start) & (used < start + len(m.channels))].astype(np.int64)
            if len(channels):
                lines.append(MapLines(p, n, channels - start, *_pixel_lines(part, m)))
                kept.extend(channels.tolist())
            start += len(m.channels)
    column = np.full(forest.n_features, -1, np.int32)
    column[kept] = np.arange(len(kept), dtype=np.int32)
    feature = np.where(forest.feature >= 0, column[forest.feature], np.int32(-1))
    return lines, replace(forest, feature=feature, n_features=len(kept), spec=None)


def _pixel_lines(part: TilePart, m: MapSpec) -> tuple[Lines | None, Lines | None]:
    """Return the rows and columns of a package's tile between the cells of a map."""
    if isinstance(part.encoder, FilterBank):
        return None, None
    rows, columns = (
        _lines(side + 2 * inset, m.stride, offset, cells)
        for side, inset, offset, cells in zip(part.sides, part.inset, part.offset(m), part.cells(m), strict=True)
    )
    return rows, columns


def _lines(side: int, stride: float, offset: float, cells: int) -> Lines:
    """Return the lines of a tile; beyond the outermost cells of a map its pixels are clamped."""
    first, second, weight = interpolation_cells(np.arange(side), stride, offset, cells)
    return Lines(first.astype(np.int64), second.astype(np.int64), weight)
