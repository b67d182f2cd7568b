"""The filter bank, compiled: from one channel of a tile to the filters of one scale, block by block in the cache.

    tile ──presmooth──▶ smooth ──derive──▶ Gaussian, Laplacian, gradient, difference of Gaussians, Hessian
                           └───edges───▶ products ──smooth──▶ structure tensor

The unit of work is a row of pixels: a correlation along any axis is a sum of rows, of five after presmoothing, and the processor adds
eight pixels at a time. Rows that several filters begin with are computed once. Everything between the float32 input and the float32
features is float64.

At a border of the image each pass reflects, without repeating the edge pixel. An image that is continued by reflection stays so when
it is smoothed, so a block is presmoothed with a margin, beyond the image if need be, and all further passes find their pixels there.
Only the products of the structure tensor have a reflected margin of their own: those of reflected edges would have other signs.

Volumes are flat arrays: planes of rows of pixels. A block in 2D is a volume of one plane.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit

from forestbridge.compiled import COMPILED, EXACT, source_hash
from forestbridge.encoders import eigenvalues, filter_passes
from forestbridge.encoders.eigenvalues import eigenvalues_2d, eigenvalues_3d
from forestbridge.encoders.filter_passes import MARGIN, derive, mirror, presmooth

PRODUCT_MARGIN = 2
"""Pixels around the products of a block."""

SMOOTH, FIRST, SECOND, INNER, EDGE_SMOOTH, EDGE = range(6)
"""Rows of `taps`, five numbers each: orders 0, 1, 2 at the filter's sigma; order 0 at the inner sigma of the difference of Gaussians;
orders 0 and 1 at the sigma of the structure tensor's edges."""

GAUSSIAN, LAPLACIAN, MAGNITUDE, DIFFERENCE, TENSOR, HESSIAN = range(6)
"""Places in `chosen`, as in `filter_kernels.FEATURE_NAMES`."""

(Y_SMOOTH, Y_FIRST, Y_SECOND, Y_INNER, ZF_SMOOTH, ZF_FIRST, ZS_SMOOTH, G, G_INNER, X, Y, Z, XX, YY, YX, ZZ, ZX, ZY) = (
    range(18)
)
"""Rows of scratch. Derived along y: of the plane that was smoothed along z, of that derived once (ZF) and twice (ZS). Then along all
axes: smoothing, first and second derivatives. The structure tensor uses them again for its own."""


class Target(NamedTuple):
    """Where a block's features go: place of the first pixel in the first feature, and pixels from one to the next."""

    at: int
    feature: int
    plane: int
    row: int


@njit(**COMPILED)
def _compute_filters(tile, block, presmoothing, taps, chosen, features, target):
    """Write the chosen filters of one block.

    Parameters
    ----------
    tile
        (Z · Y · X,) float32.
    block, target
        `Block` and `Target`.
    presmoothing
        (2·r + 1,) float64 taps.
    taps
        (6, 5) float64, see `SMOOTH`.
    chosen
        (6,) int64: at which feature each filter begins; -1 if it is not wanted. Eigenvalues follow each other.
    features
        Flat float32.
    """
    smooth = np.empty((block.depth + 2 * block.margin_z) * block.plane)
    presmooth(tile, block, presmoothing, smooth)
    rows = np.zeros((ZY + 1) * block.row)
    in_3d = block.margin_z > 0
    planes = np.empty(6 * block.plane if in_3d else 0)
    products = np.empty((6 if in_3d else 3) * len(smooth) if chosen[TENSOR] >= 0 else 0)
    margin_z = PRODUCT_MARGIN if in_3d else 0
    for z in range(-margin_z, block.depth + margin_z):
        source, at = smooth, 0
        if in_3d:
            source = planes
            start = (z + MARGIN) * block.plane
            inside = 0 <= z < block.depth
            for order in range(SMOOTH if inside else EDGE_SMOOTH, EDGE + 1):
                derive(taps, order, smooth, start, block.plane, planes, order * block.plane, block.plane)
        for y in range(-PRODUCT_MARGIN, block.height + PRODUCT_MARGIN):
            if chosen[TENSOR] >= 0:
                _multiply_edges(block, taps, source, y, rows, products, z)
            if 0 <= z < block.depth and 0 <= y < block.height:
                _derive_rows(block, taps, chosen, source, y, rows)
                at = target.at + z * target.plane + y * target.row
                _write_rows(block, chosen, rows, features, at, target.feature)
    if chosen[TENSOR] >= 0:
        for k in range(6 if in_3d else 3):
            _reflect_products(block, products, k * len(smooth))
        _write_tensor(block, taps, chosen[TENSOR], products, planes, rows, features, target)


def _cached(sources: str) -> Callable[..., None]:
    @njit(cache=True, **COMPILED)
    def compute_filters(tile, block, presmoothing, taps, chosen, features, target):
        """See `_compute_filters`."""
        assert sources  # part of the cache's key
        _compute_filters(tile, block, presmoothing, taps, chosen, features, target)

    return compute_filters


compute_filters = _cached(source_hash(__file__, filter_passes.__file__, eigenvalues.__file__))


@njit(**COMPILED)
def _derive_rows(block, taps, chosen, source, y, rows):
    """Write the rows that the chosen filters need, for row y of the block."""
    row, n = block.row, block.width
    in_3d = block.margin_z > 0
    at = (y + MARGIN) * row
    smooth = chosen[GAUSSIAN] >= 0 or chosen[DIFFERENCE] >= 0
    first = chosen[MAGNITUDE] >= 0
    second = chosen[LAPLACIAN] >= 0 or chosen[HESSIAN] >= 0
    mixed = chosen[HESSIAN] >= 0
    derive(taps, SMOOTH, source, at, row, rows, Y_SMOOTH * row, row)
    if first or mixed:
        derive(taps, FIRST, source, at, row, rows, Y_FIRST * row, row)
    if smooth:
        _across(taps, SMOOTH, rows, Y_SMOOTH, G, row, n)
    if first:
        _across(taps, FIRST, rows, Y_SMOOTH, X, row, n)
        _across(taps, SMOOTH, rows, Y_FIRST, Y, row, n)
    if second:
        derive(taps, SECOND, source, at, row, rows, Y_SECOND * row, row)
        _across(taps, SECOND, rows, Y_SMOOTH, XX, row, n)
        _across(taps, SMOOTH, rows, Y_SECOND, YY, row, n)
    if mixed:
        _across(taps, FIRST, rows, Y_FIRST, YX, row, n)
    if chosen[DIFFERENCE] >= 0:
        inner = at + (INNER * block.plane if in_3d else 0)
        derive(taps, INNER, source, inner, row, rows, Y_INNER * row, row)
        _across(taps, INNER, rows, Y_INNER, G_INNER, row, n)
    if in_3d and (first or mixed):
        derive(taps, SMOOTH, source, at + FIRST * block.plane, row, rows, ZF_SMOOTH * row, row)
        _across(taps, SMOOTH, rows, ZF_SMOOTH, Z, row, n)
    if in_3d and second:
        derive(taps, SMOOTH, source, at + SECOND * block.plane, row, rows, ZS_SMOOTH * row, row)
        _across(taps, SMOOTH, rows, ZS_SMOOTH, ZZ, row, n)
    if in_3d and mixed:
        derive(taps, FIRST, source, at + FIRST * block.plane, row, rows, ZF_FIRST * row, row)
        _across(taps, FIRST, rows, ZF_SMOOTH, ZX, row, n)
        _across(taps, SMOOTH, rows, ZF_FIRST, ZY, row, n)


@njit(**COMPILED)
def _across(taps, order, rows, source, target, row, n):
    """Derive a row of scratch along x into another one, which begins with the block's first pixel."""
    derive(taps, order, rows, source * row + MARGIN, 1, rows, target * row, n)


@njit(**EXACT)
def _write_rows(block, chosen, rows, features, at, feature):
    """Write the features of a row but the structure tensor's; `at` is its place in the first feature.

    In 2D the derivatives along z stay 0.
    """
    row, n = block.row, np.uint64(block.width)
    g, inner = np.uint64(G * row), np.uint64(G_INNER * row)
    x, y, z = np.uint64(X * row), np.uint64(Y * row), np.uint64(Z * row)
    xx, yy, zz = np.uint64(XX * row), np.uint64(YY * row), np.uint64(ZZ * row)
    if chosen[GAUSSIAN] >= 0:
        to = np.uint64(at + chosen[GAUSSIAN] * feature)
        for i in range(n):
            features[to + i] = rows[g + i]
    if chosen[LAPLACIAN] >= 0:
        to = np.uint64(at + chosen[LAPLACIAN] * feature)
        for i in range(n):
            features[to + i] = rows[xx + i] + rows[yy + i] + rows[zz + i]
    if chosen[MAGNITUDE] >= 0:
        to = np.uint64(at + chosen[MAGNITUDE] * feature)
        for i in range(n):
            square = rows[x + i] * rows[x + i] + rows[y + i] * rows[y + i]
            features[to + i] = math.sqrt(square + rows[z + i] * rows[z + i])
    if chosen[DIFFERENCE] >= 0:
        to = np.uint64(at + chosen[DIFFERENCE] * feature)
        for i in range(n):
            features[to + i] = rows[g + i] - rows[inner + i]
    if chosen[HESSIAN] >= 0:
        _write_eigenvalues(block, rows, features, at + chosen[HESSIAN] * feature, feature)


@njit(**COMPILED)
def _write_eigenvalues(block, rows, features, at, feature):
    """Write the eigenvalues of the symmetric matrices in the rows XX … ZY, the largest first."""
    if block.margin_z > 0:
        _write_eigenvalues_3d(rows, block.row, block.width, features, at, feature)
    else:
        _write_eigenvalues_2d(rows, block.row, block.width, features, at, feature)


@njit(**EXACT)
def _write_eigenvalues_2d(rows, row, n, features, at, feature):
    xx, yy, yx = np.uint64(XX * row), np.uint64(YY * row), np.uint64(YX * row)
    first, second = np.uint64(at), np.uint64(at + feature)
    for i in range(np.uint64(n)):
        features[first + i], features[second + i] = eigenvalues_2d(rows[yy + i], rows[xx + i], rows[yx + i])


@njit(**EXACT)
def _write_eigenvalues_3d(rows, row, n, features, at, feature):
    xx, yy, zz = np.uint64(XX * row), np.uint64(YY * row), np.uint64(ZZ * row)
    yx, zx, zy = np.uint64(YX * row), np.uint64(ZX * row), np.uint64(ZY * row)
    first, second, third = np.uint64(at), np.uint64(at + feature), np.uint64(at + 2 * feature)
    for i in range(np.uint64(n)):
        features[first + i], features[second + i], features[third + i] = eigenvalues_3d(
            rows[zz + i], rows[yy + i], rows[xx + i], rows[zy + i], rows[zx + i], rows[yx + i]
        )


@njit(**EXACT)
def _multiply_edges(block, taps, source, y, rows, products, z):
    """Write the products of the first derivatives at the tensor's inner sigma, for a row of the block or of the margin around it."""
    row, n = block.row, block.width + 2 * PRODUCT_MARGIN
    in_3d = block.margin_z > 0
    at = (y + MARGIN) * row
    smooth_z, edge_z = (EDGE_SMOOTH * block.plane, EDGE * block.plane) if in_3d else (0, 0)
    derive(taps, EDGE_SMOOTH, source, at + smooth_z, row, rows, Y_SMOOTH * row, row)
    derive(taps, EDGE, source, at + smooth_z, row, rows, Y_FIRST * row, row)
    begin = MARGIN - PRODUCT_MARGIN
    derive(taps, EDGE, rows, Y_SMOOTH * row + begin, 1, rows, X * row, n)
    derive(taps, EDGE_SMOOTH, rows, Y_FIRST * row + begin, 1, rows, Y * row, n)
    to = (z + block.margin_z) * block.plane + at + begin
    volume = len(products) // (6 if in_3d else 3)
    _multiply(rows, X * row, X * row, products, to, n)
    _multiply(rows, Y * row, Y * row, products, to + (YY - XX) * volume, n)
    _multiply(rows, Y * row, X * row, products, to + (YX - XX) * volume, n)
    if in_3d:
        derive(taps, EDGE_SMOOTH, source, at + edge_z, row, rows, Y_SMOOTH * row, row)
        derive(taps, EDGE_SMOOTH, rows, Y_SMOOTH * row + begin, 1, rows, Z * row, n)
        _multiply(rows, Z * row, Z * row, products, to + (ZZ - XX) * volume, n)
        _multiply(rows, Z * row, X * row, products, to + (ZX - XX) * volume, n)
        _multiply(rows, Z * row, Y * row, products, to + (ZY - XX) * volume, n)


@njit(**EXACT)
def _multiply(rows, a, b, products, to, n):
    a, b, to = np.uint64(a), np.uint64(b), np.uint64(to)
    for i in range(np.uint64(n)):
        products[to + i] = rows[a + i] * rows[b + i]


@njit(**COMPILED)
def _write_tensor(block, taps, first, products, planes, rows, features, target):
    """Smooth the products and write the structure tensor's eigenvalues."""
    in_3d = block.margin_z > 0
    volume = (block.depth + 2 * block.margin_z) * block.plane
    for z in range(block.depth):
        if in_3d:
            for k in range(6):
                start = k * volume + (z + MARGIN) * block.plane
                derive(taps, SMOOTH, products, start, block.plane, planes, k * block.plane, block.plane)
        for y in range(block.height):
            for k in range(6 if in_3d else 3):
                at = (y + MARGIN) * block.row
                if in_3d:
                    derive(taps, SMOOTH, planes, k * block.plane + at, block.row, rows, Y_SMOOTH * block.row, block.row)
                else:
                    derive(taps, SMOOTH, products, k * volume + at, block.row, rows, Y_SMOOTH * block.row, block.row)
                _across(taps, SMOOTH, rows, Y_SMOOTH, XX + k, block.row, block.width)
            at = target.at + z * target.plane + y * target.row + first * target.feature
            _write_eigenvalues(block, rows, features, at, target.feature)


@njit(**COMPILED)
def _reflect_products(block, products, begin):
    """Fill what the volume of a product that begins at `begin` has outside the tile, by reflection."""
    margin_z = min(PRODUCT_MARGIN, block.margin_z)
    top, bottom = block.y - PRODUCT_MARGIN, block.y + block.height + PRODUCT_MARGIN
    left, right = block.x - PRODUCT_MARGIN, block.x + block.width + PRODUCT_MARGIN
    origin = begin + (block.margin_z - block.z) * block.plane + (MARGIN - block.y) * block.row + MARGIN - block.x
    for z in range(block.z - margin_z, block.z + block.depth + margin_z):
        for y in range(top, bottom):
            to, at = (
                z * block.plane + y * block.row,
                mirror(z, block.nz) * block.plane + mirror(y, block.ny) * block.row,
            )
            whole_row = not (0 <= z < block.nz and 0 <= y < block.ny)
            for x in range(left, right if whole_row else 0):
                products[origin + to + x] = products[origin + at + mirror(x, block.nx)]
            for x in range(max(left, block.nx), 0 if whole_row else right):
                products[origin + to + x] = products[origin + at + mirror(x, block.nx)]
