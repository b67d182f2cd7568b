"""From features and a forest to probabilities or labels: packed, checked, cut into blocks that run in threads."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import TYPE_CHECKING, Generic, NamedTuple, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import SpecMismatchError
from forestbridge.forest import PixelForest
from forestbridge.threads import for_each, in_order
from forestbridge.tiles import interpolation_cells

if TYPE_CHECKING:
    from forestbridge.engine.walk import Maps, Trees

BLOCK = (64, 1024)
"""Rows and columns of pixels that a thread takes at a time: whole tiles, few calls, and enough blocks for many threads."""

POINTS_PER_ROW = 16
"""Points in one row are classified as an image of this width, so that they fill tiles."""

POINTS = 2**14
"""Points in one row that a thread takes at a time; their features are copied."""

PIECE = 2**22
"""Features that a thread looks at in one go when it searches for NaN."""

Region = tuple[slice, slice]
"""Rows and columns of pixels."""


class Cells(Protocol):
    """A numpy array, or a tensor on a device."""

    @property
    def shape(self) -> tuple[int, ...]: ...


C = TypeVar("C", bound=Cells)


class MapPart(NamedTuple, Generic[C]):
    """A feature map, or the part of one that some pixels need.

    Attributes
    ----------
    cells
        (F, rows, columns) float32 or float16.
    stride, offset
        Along y and x: pixels between neighbouring cells, and the pixel on which the centre of the whole map's first cell lies.
    size
        Rows and columns of the whole map; pixels beyond its outermost centres are clamped.
    first
        Row and column of the whole map at which `cells` begins.
    """

    cells: C
    stride: tuple[float, float]
    offset: tuple[float, float]
    size: tuple[int, int]
    first: tuple[int, int] = (0, 0)

    @property
    def is_plain(self) -> bool:
        """Whether its cells are the pixels."""
        return self.stride == (1, 1) and self.offset == (0, 0)


def predict(
    forest: PixelForest,
    features: NDArray | Sequence[NDArray],
    *,
    shape: tuple[int, int] | None = None,
    threads: int | None = None,
) -> NDArray[np.float32]:
    """Return the class probabilities of every pixel.

    Parameters
    ----------
    features
        (F, Y, X), (F, Z, Y, X) or (F, N), finite, in the order of the forest's spec. Or a list of maps at their own stride,
        (F, rows, columns) each and together in that order; a pixel between their cells is interpolated. Float32 or float16.
    shape
        (Y, X) of the image, for maps. The forest's spec says where they lie in it; for a forest without spec, a map of r rows has
        the stride Y / r and its outermost cells lie half a stride inside the image.
    threads
        All cores by default; the result does not depend on them.

    Returns
    -------
    probabilities
        (K, Y, X), (K, Z, Y, X) or (K, N) float32 in the order of ``forest.classes``; they sum to 1.

    Raises
    ------
    SpecMismatchError
        If the number of features, or of maps, is not the forest's.
    ValueError
        If a feature is NaN or infinite, with count and first place; if maps come without a shape.
    """
    parts, plane, outer = _open(forest, features, shape, threads)
    result = np.empty((forest.n_classes, *plane), np.float32)

    def work(block: Region) -> None:
        predict_block(forest, parts, block, result, at=(block[0].start, block[1].start))

    for_each(work, _blocks(plane), threads)
    return result.reshape(forest.n_classes, *outer)


def predict_labels(
    forest: PixelForest,
    features: NDArray | Sequence[NDArray],
    *,
    shape: tuple[int, int] | None = None,
    threads: int | None = None,
) -> NDArray[np.unsignedinteger]:
    """Return the label value, as painted, of every pixel's most probable class; of equal ones the first.

    Parameters
    ----------
    features, shape, threads
        As in `predict`.

    Returns
    -------
    labels
        (Y, X), (Z, Y, X) or (N,) in the smallest unsigned dtype that holds the largest value.

    Raises
    ------
    SpecMismatchError, ValueError
        As `predict`.
    """
    parts, plane, outer = _open(forest, features, shape, threads)
    values = np.asarray(forest.classes, np.min_scalar_type(max(forest.classes)))
    result = np.empty(plane, values.dtype)

    def work(block: Region) -> None:
        probabilities = np.empty((forest.n_classes, *_lengths(block)), np.float32)
        predict_block(forest, parts, block, probabilities)
        result[block] = values[probabilities.argmax(axis=0)]

    for_each(work, _blocks(plane), threads)
    return result.reshape(outer)


def predict_block(
    forest: PixelForest,
    parts: Sequence[MapPart],
    region: Region,
    probabilities: NDArray[np.float32],
    *,
    at: tuple[int, int] = (0, 0),
) -> None:
    """Write the class probabilities of some pixels, in the calling thread.

    Parameters
    ----------
    parts
        One per map of the forest's spec, finite; they hold the cells around the pixels.
    region
        The pixels.
    probabilities
        (K, rows, columns) float32, contiguous.
    at
        Row and column of `probabilities` that the region's first pixel is written to.
    """
    from forestbridge.engine.walk import classify  # compiled; numba takes a while to import

    rows, columns = _lengths(region)
    if rows == 1 and len(parts) == 1 and parts[0].is_plain:
        part = _folded(parts[0], region)
        folded = np.empty((forest.n_classes, *part.size), np.float32)
        whole = (slice(0, part.size[0]), slice(0, part.size[1]))
        classify(pack(forest), _maps(forest, [part], whole), *part.size, folded, 0, 0)
        probabilities[:, at[0], at[1] : at[1] + columns] = folded.reshape(forest.n_classes, -1)[:, :columns]
    else:
        classify(pack(forest), _maps(forest, parts, region), rows, columns, probabilities, *at)


def _folded(part: MapPart, region: Region) -> MapPart:
    """Return one row of pixels as several short ones, the last of which is filled up."""
    row, columns = (slice(p.start - f, p.stop - f) for p, f in zip(region, part.first, strict=True))
    cells = part.cells[:, row.start, columns]
    cells = np.pad(cells, [(0, 0), (0, -cells.shape[1] % POINTS_PER_ROW)], mode="edge")
    cells = cells.reshape(len(cells), -1, POINTS_PER_ROW)
    return MapPart(cells, (1, 1), (0, 0), (cells.shape[1], POINTS_PER_ROW))


def require_finite(parts: Sequence[MapPart], threads: int | None = None) -> None:
    """Refuse features that are NaN or infinite.

    Raises
    ------
    ValueError
        With their count and the first place.
    """
    from forestbridge.engine.loading import largest_word

    for n, part in enumerate(parts):
        words = np.ascontiguousarray(part.cells).reshape(-1).view(f"u{part.cells.itemsize}")
        infinity = np.array(np.inf, part.cells.dtype).view(words.dtype)[()]
        finite = in_order(
            lambda piece, infinity=infinity: largest_word(piece, infinity | (infinity - 1)) < infinity,
            np.array_split(words, max(1, words.size // PIECE)),
            threads,
        )
        if not all(finite):
            raise ValueError(bad_features_text(part.cells, f" of map {n}" if len(parts) > 1 else ""))


def bad_features_text(cells: NDArray, map_name: str) -> str:
    """Return why (F, ...) cells that are not all finite are refused."""
    bad = ~np.isfinite(cells)
    f, *place = (int(i) for i in np.argwhere(bad)[0])
    return (
        f"expected finite features, found {int(bad.sum())} NaN or infinite ones, the first in feature {f}{map_name} at "
        f"{tuple(place)}; a forest has no answer for them: extract the missing part, or replace them first"
    )


@lru_cache(maxsize=4)
def pack(forest: PixelForest) -> "Trees":
    """Return a forest as the walk takes it."""
    from forestbridge.engine.walk import MIXED, NODE, Trees

    leaf = forest.feature < 0
    nodes = np.zeros(len(forest.feature), NODE)
    nodes["threshold"] = np.where(leaf, np.nan, forest.threshold)
    nodes["feature"][~leaf] = np.searchsorted(forest.used_features, forest.feature[~leaf])
    nodes["child"] = forest.left
    fractions = forest.leaves[forest.left[leaf]]
    nodes["pure"][leaf] = np.where(fractions.max(axis=1) == 1, fractions.argmax(axis=1), MIXED)
    one = 2 ** (((2**32 - 1) // forest.n_trees).bit_length() - 1)
    votes = np.rint(forest.leaves.astype(np.float64) * one).astype(np.uint32)
    return Trees(nodes, forest.roots.astype(np.uint32), votes, np.uint32(one))


def _open(
    forest: PixelForest, features: NDArray | Sequence[NDArray], shape: tuple[int, int] | None, threads: int | None
) -> tuple[list[MapPart], tuple[int, int], tuple[int, ...]]:
    """Return the checked maps, the (rows, columns) that they are classified as, and the shape that the user knows."""
    if isinstance(features, np.ndarray):
        part = _open_planes(features)
        parts, plane, outer = [part], part.size, features.shape[1:]
        checked = [part._replace(cells=part.cells.reshape(features.shape))]  # places are told as the user knows them
    else:
        if shape is None:
            raise ValueError("expected shape=(Y, X) of the image beside maps, found none; a map does not know it")
        parts, plane, outer = open_maps(forest, features, shape), shape, shape
        checked = parts
    if sum(len(part.cells) for part in parts) != forest.n_features:
        found = features.shape if isinstance(features, np.ndarray) else [m.shape for m in features]
        raise SpecMismatchError(
            f"expected the {forest.n_features} features of {forest.spec or 'the forest'}, found an array of shape {found}; "
            "the first axis counts the features: extract them with the forest's encoder"
        )
    require_finite(checked, threads)
    return parts, plane, outer


def _open_planes(features: NDArray) -> MapPart:
    """Return features at every pixel as one map: planes of a stack below each other, points in one row."""
    if features.dtype != np.float16:
        features = np.ascontiguousarray(features, np.float32)
    columns = features.shape[-1]
    cells = features.reshape(len(features), -1, columns)
    return MapPart(cells, (1, 1), (0, 0), (cells.shape[1], columns))


def open_maps(forest: PixelForest, maps: Sequence[C], shape: tuple[int, int]) -> list[MapPart[C]]:
    """Return maps with their places in an image of `shape`.

    Raises
    ------
    SpecMismatchError
        If they are not those of the forest's spec.
    """
    if forest.spec is None:
        parts = []
        for cells in maps:
            y, x = shape[0] / cells.shape[1], shape[1] / cells.shape[2]
            parts.append(MapPart(cells, (y, x), ((y - 1) / 2, (x - 1) / 2), (cells.shape[1], cells.shape[2])))
        return parts
    specs = forest.spec.maps
    expected = [(len(m.channels), m.n_cells(shape[0]), m.n_cells(shape[1])) for m in specs]
    if (found := [tuple(m.shape) for m in maps]) != expected:
        raise SpecMismatchError(
            f"expected the maps {', '.join(m.name for m in specs)} of {forest.spec} as {expected} for an image of {shape}, found "
            f"{found}; give all of them, in this order"
        )
    return [
        MapPart(cells, (m.stride, m.stride), (m.offset, m.offset), (cells.shape[1], cells.shape[2]))
        for m, cells in zip(specs, maps, strict=True)
    ]


def _blocks(plane: tuple[int, int]) -> Iterator[Region]:
    """Yield blocks that cover (rows, columns) of pixels."""
    rows, columns = BLOCK if plane[0] > 1 else (1, POINTS)
    for y, x in product(range(0, plane[0], rows), range(0, plane[1], columns)):
        yield slice(y, min(y + rows, plane[0])), slice(x, min(x + columns, plane[1]))


def _lengths(region: Region) -> tuple[int, int]:
    return region[0].stop - region[0].start, region[1].stop - region[1].start


def _maps(forest: PixelForest, parts: Sequence[MapPart], region: Region) -> "Maps":
    """Return what the walk needs for a region.

    A single float32 map is used as it lies in memory. Of several, or of float16, the cells around the region are copied.
    """
    from forestbridge.engine.loading import FEATURE
    from forestbridge.engine.walk import Maps

    starts = np.cumsum([0, *(len(part.cells) for part in parts)])
    used = forest.used_features
    number = np.searchsorted(starts, used, side="right") - 1  # the map of each used feature
    lines = [(_lines(part, 0, region[0]), _lines(part, 1, region[1])) for part in parts]
    features = np.zeros(len(used), FEATURE)
    features["map"] = number
    first = parts[0].cells
    if len(parts) == 1 and first.dtype == np.float32 and first.flags.c_contiguous:
        cells = first.reshape(-1)
        features["start"] = used.astype(np.uint64) * np.uint64(first[0].size)
        features["width"] = first.shape[2]
    else:
        pieces, begin = [], 0
        for m, part in enumerate(parts):
            of_map = number == m
            window = _take_window(lines[m])
            piece = part.cells[used[of_map] - starts[m], *window].astype(np.float32)
            features["start"][of_map] = begin + np.arange(len(piece)) * prod(_lengths(window))
            features["width"][of_map] = _lengths(window)[1]
            pieces.append(piece.reshape(-1))
            begin += piece.size
        cells = np.concatenate(pieces)
    rows, columns = (np.stack([pair[axis] for pair in lines]) for axis in (0, 1))
    return Maps(cells, features, np.array([part.is_plain for part in parts]), rows, columns)


def _lines(part: MapPart, axis: int, pixels: slice) -> NDArray:
    """Return between which cells of a part the pixels of one axis lie, as `LINE`."""
    from forestbridge.engine.loading import LINE

    positions = np.arange(pixels.start, pixels.stop)
    first, second, weight = interpolation_cells(positions, part.stride[axis], part.offset[axis], part.size[axis])
    lines = np.empty(len(positions), LINE)
    lines["first"], lines["second"], lines["weight"] = first - part.first[axis], second - part.first[axis], weight
    return lines


def _take_window(lines: tuple[NDArray, NDArray]) -> Region:
    """Return the rows and columns of cells that pixels lie between, and count the lines from there."""
    window = tuple(slice(int(line["first"][0]), int(line["second"][-1]) + 1) for line in lines)
    for line, cells in zip(lines, window, strict=True):
        line["first"] -= cells.start
        line["second"] -= cells.start
    return window[0], window[1]
