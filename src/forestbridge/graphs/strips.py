"""Where the pixels of a tile lie between the cells of its maps, and which channels a forest looks at."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.forest import PixelForest
from forestbridge.graphs.encoder import cell_counts, tile_sides
from forestbridge.spec import EncoderSpec
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
    index
        Of the map in the spec.
    channels
        The used ones, int64.
    rows, columns
        Of pixels.
    """

    index: int
    channels: NDArray[np.int64]
    rows: Lines
    columns: Lines


def used_maps(forest: PixelForest, spec: EncoderSpec) -> tuple[list[MapLines], PixelForest]:
    """Return the maps with a channel that the forest looks at, at least one, and the forest over these channels alone."""
    used = forest.used_features if len(forest.used_features) else np.zeros(1, np.int64)
    sides, counts = tile_sides(spec), cell_counts(spec)
    lines, kept, start = [], [], 0
    for n, m in enumerate(spec.maps):
        channels = used[(used >= start) & (used < start + len(m.channels))].astype(np.int64)
        if len(channels):
            rows, columns = (
                _lines(side, m.stride, m.offset, cells) for side, cells in zip(sides, counts[n], strict=True)
            )
            lines.append(MapLines(n, channels - start, rows, columns))
            kept.extend(channels.tolist())
        start += len(m.channels)
    column = np.full(forest.n_features, -1, np.int32)
    column[kept] = np.arange(len(kept), dtype=np.int32)
    feature = np.where(forest.feature >= 0, column[forest.feature], np.int32(-1))
    return lines, replace(forest, feature=feature, n_features=len(kept), spec=None)


def _lines(side: int, stride: float, offset: float, cells: int) -> Lines:
    """Return the lines of a tile; its first pixel and first cell are those of the image's grid."""
    first, second, weight = interpolation_cells(np.arange(side), stride, offset, cells)
    return Lines(first.astype(np.int64), second.astype(np.int64), weight)
