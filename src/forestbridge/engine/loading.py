"""From stored features to the tile at work, compiled: the range of a feature over a tile, and its 256 values when they are needed.

A plane of stride 1 is copied. In a map of larger stride a pixel lies between four cells, and its value is

    (1 - v)·((1 - u)·a + u·b) + v·((1 - u)·c + u·d)          a   b
                                                              c   d

in float32 and in this order, as `FeatureStore.at` computes it for training: the same bits.

These arguments recur:

cells
    (N,) float32: all planes of the used features.
features
    (U,) `FEATURE`: where they are.
plain
    (M,) bool: the maps whose cells are the pixels.
rows, columns
    (M, Y) and (M, X) `LINE`: where the pixels lie in the maps.
place
    `Place`: the tile at work.
weights
    (M · cells · 16,) float32: what each column of cells adds to each column of the tile at work.

They are arrays, not tuples of arrays, because numba counts references, atomically, whenever an array leaves a tuple or is sliced.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from forestbridge.compiled import COMPILED
from forestbridge.engine.lanes import LANES, SIDE, add_row, blend_rows

U_SIDE, U_LANES = np.uint64(SIDE), np.uint64(LANES)
"""Indices are unsigned where speed counts: of a signed one numba asks whether it counts from the end."""

SLACK = np.float32(1e-6)
"""How far an interpolated value, or a computed end of its range, may lie off by rounding, in units of the largest cell: less than
eight roundings of 2⁻²⁴."""

FEATURE = np.dtype([("start", "u8"), ("width", "u4"), ("map", "u4")], align=True)
"""A used feature: where its plane begins in the cells, how many cells a row has, and the number of its map."""

LINE = np.dtype([("first", "i4"), ("second", "i4"), ("weight", "f4")], align=True)
"""A row (or column) of pixels: the rows (columns) of cells it lies between, and the weight of the second one."""


class Place(NamedTuple):
    """A tile: its first pixel in the block, and its size, which is smaller than 16 at the block's end."""

    y: int
    height: int
    x: int
    width: int


@njit(**COMPILED)
def most_cells(lines, n, skip):
    """Return how many cells `n` neighbouring pixels lie between at most, over all maps but those to `skip`."""
    most = 1
    for m in range(len(lines)):
        for i in range(0, lines.shape[1], n):
            if not skip[m]:
                most = max(most, lines[m, min(i + n, lines.shape[1]) - 1].second - lines[m, i].first + 1)
    return most


@njit(**COMPILED)
def find_bounds(f, y, height, cells, features, plain, rows, columns, low, high, bounds):
    """Find the range of a feature over each tile of a row of tiles.

    Between two cells a value changes linearly. So its extremes over a tile are at the tile's first or last pixels, or at cell
    centres between them, along each axis.

    Parameters
    ----------
    y, height
        The row of tiles.
    low, high
        (columns of cells,) float32; scratch.
    bounds
        (tiles, U, 2) float32; smallest and largest value are written.
    """
    m = features[f].map
    top, bottom = rows[m, y], rows[m, y + height - 1]
    n_pixels = columns.shape[1]
    column = columns[m, 0].first
    n = columns[m, n_pixels - 1].second + 1 - column
    for c in range(n):
        low[c] = np.inf
        high[c] = -np.inf
    start, width = features[f].start + np.uint64(column), np.uint64(features[f].width)
    _widen(low, high, n, cells, start + np.uint64(top.first) * width, start + np.uint64(top.second) * width, top.weight)
    for row in range(top.second, bottom.first + 1):
        _widen(low, high, n, cells, start + np.uint64(row) * width, start + np.uint64(row) * width, np.float32(0))
    last = bottom.weight
    _widen(low, high, n, cells, start + np.uint64(bottom.first) * width, start + np.uint64(bottom.second) * width, last)
    slack = np.float32(0)
    if not plain[m]:
        for c in range(n):
            slack = max(slack, SLACK * max(-low[c], high[c]))
    for tile in range(len(bounds)):
        left, right = columns[m, tile * SIDE], columns[m, min(tile * SIDE + SIDE, n_pixels) - 1]
        smallest = min(_between(low, left, column), _between(low, right, column))
        largest = max(_between(high, left, column), _between(high, right, column))
        for c in range(left.second - column, right.first - column + 1):
            smallest = min(smallest, low[c])
            largest = max(largest, high[c])
        bounds[tile, f, 0] = smallest - slack
        bounds[tile, f, 1] = largest + slack


@njit(**COMPILED)
def _widen(low, high, n, cells, first, second, weight):
    """Widen the ranges of `n` columns of cells by a row that lies between two rows of cells."""
    rest = np.float32(1) - weight
    for c in range(np.uint64(n)):
        value = rest * cells[first + c] + weight * cells[second + c]
        low[c] = min(low[c], value)
        high[c] = max(high[c], value)


@njit(**COMPILED)
def _between(values, line, column):
    """Interpolate in a row of values that begins with a column of cells."""
    return (np.float32(1) - line.weight) * values[line.first - column] + line.weight * values[line.second - column]


@njit(**COMPILED)
def weigh_columns(place, plain, columns, weights):
    """Fill the `weights` for a tile; lanes beyond its width repeat its last column, so that they go the same way."""
    n_maps = len(plain)
    for i in range(len(weights)):
        weights[i] = 0
    for m in range(n_maps):
        if not plain[m]:
            at, left = m * len(weights) // n_maps, columns[m, place.x].first
            for i in range(SIDE):
                line = columns[m, place.x + min(i, place.width - 1)]
                weights[at + (line.first - left) * SIDE + i] += np.float32(1) - line.weight
                weights[at + (line.second - left) * SIDE + i] += line.weight


@njit(**COMPILED)
def copy_lanes(f, place, cells, features, rows, columns, values):
    """Write the lanes of a feature whose cells are the pixels; those beyond the tile's width or height repeat its last ones.

    Parameters
    ----------
    values
        (256·U,) float32.
    """
    m, lane, last = features[f].map, U_LANES * np.uint64(f), np.uint64(place.width - 1)
    start = features[f].start + np.uint64(columns[m, place.x].first)
    for j in range(SIDE):
        row = start + np.uint64(rows[m, place.y + min(j, place.height - 1)].first) * np.uint64(features[f].width)
        for i in range(U_SIDE):
            values[lane + np.uint64(j * SIDE) + i] = cells[row + min(i, last)]


@njit(**COMPILED)
def interpolate_lanes(f, place, cells, features, rows, columns, weights, between, values):
    """Write the lanes of a feature of a map with a stride; those beyond the tile's width or height repeat its last ones.

    Parameters
    ----------
    between
        (rows of cells · 16,) float32; scratch.
    values
        (256·U,) float32.
    """
    m, row_length = features[f].map, np.uint64(features[f].width)
    top, left = rows[m, place.y].first, columns[m, place.x].first
    n_rows = rows[m, place.y + place.height - 1].second - top + 1
    n_columns = columns[m, place.x + place.width - 1].second - left + 1
    start = features[f].start + np.uint64(top) * row_length + np.uint64(left)
    at = np.int64(m) * len(weights) // len(rows)
    for i in range(np.uint64(n_rows * SIDE)):
        between[i] = 0
    for c in range(n_columns):  # terms of weight 0 change no bit, so that the sum is the formula's
        for r in range(n_rows):
            cell = cells[start + np.uint64(r) * row_length + np.uint64(c)]
            add_row(between, r * SIDE, weights, at + c * SIDE, cell)
    for j in range(SIDE):
        line = rows[m, place.y + min(j, place.height - 1)]
        first, second = (line.first - top) * SIDE, (line.second - top) * SIDE
        lane = LANES * np.int64(f) + j * SIDE
        blend_rows(values, lane, between, first, second, np.float32(1) - line.weight, line.weight)


@njit(cache=True, **COMPILED)
def largest_word(words, magnitude):
    """Return the largest of the `words` under a mask; of floats, seen as unsigned integers without their sign, that of the largest
    float, and infinity and NaN are larger than all others."""
    largest = magnitude & words.dtype.type(0)
    for i in range(len(words)):
        largest = max(largest, words[i] & magnitude)
    return largest
