"""The walk, compiled: a tile of 16 × 16 pixels goes through many trees at once.

    a tile                       a node: feature f, threshold t       low … high: range of f over the tile
    ┌────────────┐
    │ ░░░░▒▒▒▒▒▒ │               high ≤ t     the tile goes left: one comparison for 256 pixels
    │ ░░░░▒▒▒▒▒▒ │               low  > t     the tile goes right
    │ ░░░▒▒▒▒▒▒▒ │               otherwise    256 comparisons, sixteen to an instruction, part the pixels: ░ left, ▒ right
    │ ░▒▒▒▒▒▒▒▒▒ │
    └────────────┘

Neighbouring pixels resemble each other, so most nodes cost one comparison per tile. The pixels of a tile that are at the same
node of a tree form a packet: the node, and a mask of 256 bits. The packets of a group of trees go down together:

    1. descend   each packet goes down as long as the whole tile goes one way
    2. vote      a packet at a leaf adds the leaf's class fractions to the sums of its pixels, and ends
    3. part      a packet at any other node becomes two, or one; go on with 1 until none is left

In step 1 no packet waits for another, so that the processor looks at many nodes at the same time.

The matrix of pixels × features never exists. A feature that parts no packet of a tile is not even loaded.

Votes are integers: class fractions in units of 1/`one`. Their sum depends neither on the order of the trees nor on how the image
was cut into tiles nor on the machine: the same features give the same bits.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from forestbridge.compiled import COMPILED, source_hash
from forestbridge.engine import lanes, loading
from forestbridge.engine.lanes import LANES, SIDE, WORDS, add, count, le
from forestbridge.engine.loading import (
    U_LANES,
    Place,
    copy_lanes,
    find_bounds,
    interpolate_lanes,
    most_cells,
    weigh_columns,
)

GROUP = 32
"""Trees that go down together. They have at most 32 × 256 packets of 36 bytes, and mostly a few hundred, which stay in the cache."""

MIXED = np.uint32(0xFFFFFFFF)
"""The class of a leaf that holds several."""

NODE = np.dtype([("threshold", "f4"), ("feature", "u4"), ("child", "u4"), ("pure", "u4")], align=True)
"""A split: a pixel goes left iff its value ≤ threshold; `feature` counts the used features; `child` is the left child, the right one
follows it. A leaf: `threshold` is NaN, `child` its row in the votes, `pure` its class or `MIXED`."""

ALL = np.uint64(0xFFFFFFFFFFFFFFFF)
U1, U2, U3, U_WORDS = np.uint64(1), np.uint64(2), np.uint64(3), np.uint64(WORDS)


class Trees(NamedTuple):
    """A forest, packed for the walk.

    Attributes
    ----------
    nodes
        (N,) `NODE`.
    roots
        (T,) uint32.
    votes
        (L, K) uint32: the class fractions of each leaf in units of 1/`one`.
    one
        The largest power of two with T · one < 2³².
    """

    nodes: NDArray
    roots: NDArray[np.uint32]
    votes: NDArray[np.uint32]
    one: np.uint32


class Maps(NamedTuple):
    """The features that a forest uses, as they are stored, and where the pixels lie; `forestbridge.engine.loading` explains them."""

    cells: NDArray[np.float32]
    features: NDArray
    plain: NDArray[np.bool_]
    rows: NDArray
    columns: NDArray


@njit(**COMPILED)
def _classify(trees, maps, n_rows, n_columns, probabilities, y_at, x_at):
    """Write the probabilities of a block of pixels.

    Parameters
    ----------
    trees, maps
        `Trees`, and `Maps` for the block.
    n_rows, n_columns
        Of the block.
    probabilities
        (K, Y, X) float32.
    y_at, x_at
        Where the block begins in `probabilities`.
    """
    nodes, roots, votes, one = trees
    cells, features, plain, rows, columns = maps
    n_features, n_classes, n_tiles = len(features), votes.shape[1], (n_columns + SIDE - 1) // SIDE
    low = np.empty(most_cells(columns, n_columns, np.zeros_like(plain)), np.float32)
    high = np.empty_like(low)
    bounds = np.empty((n_tiles, max(n_features, 1), 2), np.float32)
    weights = np.empty(len(plain) * most_cells(columns, SIDE, plain) * SIDE, np.float32)
    between = np.empty(most_cells(rows, SIDE, plain) * SIDE, np.float32)
    values, loaded = np.empty(n_features * LANES, np.float32), np.empty(n_features, np.bool_)
    counts, sums = np.empty(n_classes * LANES, np.uint8), np.empty(n_classes * LANES, np.uint32)
    packets, masks = np.empty(GROUP * LANES, np.uint32), np.empty(GROUP * LANES * WORDS, np.uint64)
    next_packets, next_masks = np.empty_like(packets), np.empty_like(masks)
    moving = np.empty_like(packets)
    for y in range(0, n_rows, SIDE):
        height = min(SIDE, n_rows - y)
        for f in range(n_features):
            find_bounds(f, y, height, cells, features, plain, rows, columns, low, high, bounds)
        for tile in range(n_tiles):
            place = Place(y, height, tile * SIDE, min(SIDE, n_columns - tile * SIDE))
            weigh_columns(place, plain, columns, weights)
            loaded[:] = False
            sums[:] = 0
            for first in range(0, len(roots), GROUP):
                n = _start(roots, first, packets, masks)
                counts[:] = 0
                while n > 0:
                    _descend(nodes, packets, n, moving, bounds, tile)
                    for p in range(n):
                        f = nodes[packets[p]].feature
                        if loaded[f] or _is_leaf(nodes, packets[p]):
                            continue
                        loaded[f] = True
                        if plain[features[f].map]:
                            copy_lanes(f, place, cells, features, rows, columns, values)
                        else:
                            interpolate_lanes(f, place, cells, features, rows, columns, weights, between, values)
                    n = _vote_and_part(nodes, votes, values, packets, masks, n, next_packets, next_masks, counts, sums)
                    packets, next_packets = next_packets, packets
                    masks, next_masks = next_masks, masks
                for lane in range(len(sums)):
                    sums[lane] += np.uint32(counts[lane]) * one
            _write(sums, np.float64(one) * len(roots), place, probabilities, y_at, x_at)


def _cached(sources: str) -> Callable[..., None]:
    @njit(cache=True, **COMPILED)
    def classify(trees, maps, n_rows, n_columns, probabilities, y_at, x_at):
        """See `_classify`."""
        assert sources  # part of the cache's key
        _classify(trees, maps, n_rows, n_columns, probabilities, y_at, x_at)

    return classify


classify = _cached(source_hash(__file__, loading.__file__, lanes.__file__))


@njit(**COMPILED)
def _start(roots, first, packets, masks):
    """Begin with the whole tile at the root of each tree of a group, and return how many these are."""
    n = min(GROUP, len(roots) - first)
    for p in range(n):
        packets[p] = roots[first + p]
    for word in range(n * WORDS):
        masks[word] = ALL
    return n


@njit(**COMPILED)
def _is_leaf(nodes, node):
    return np.isnan(nodes[node].threshold)


@njit(**COMPILED)
def _descend(nodes, packets, n, moving, bounds, tile):
    """Move `n` packets down as long as the whole tile goes one way, without a branch that the processor could guess wrongly.

    Parameters
    ----------
    packets
        (n,) uint32: the node of each packet.
    moving
        (n,) uint32; scratch: the packets that moved in the last round.
    bounds
        (tiles, U, 2) float32: the range of each feature over each tile.
    """
    for p in range(n):
        moving[p] = p
    while n > 0:
        moved = np.uint64(0)
        for i in range(n):
            p = moving[i]
            node = packets[p]
            f, t, child = nodes[node].feature, nodes[node].threshold, nodes[node].child
            right = np.uint32(bounds[tile, f, 0] > t)
            moves = right | np.uint32(bounds[tile, f, 1] <= t)  # neither is true for the NaN of a leaf
            packets[p] = np.uint32(child + right) if moves else node
            moving[moved] = p
            moved += np.uint64(moves)
        n = np.int64(moved)


@njit(**COMPILED)
def _vote_and_part(nodes, votes, values, packets, masks, n, next_packets, next_masks, counts, sums):
    """Let the packets at a leaf vote, part the others, and return how many packets that makes.

    Parameters
    ----------
    values
        (256·U,) float32: the lanes of each feature that a packet is parted by.
    packets, masks, n
        (n,) uint32: the node of each packet. (4·n,) uint64, four words each: lane p of the tile is bit p mod 64 of word p / 64.
    next_packets, next_masks
        Written.
    counts, sums
        (256·K,) uint8 and uint32: votes of pure leaves, and votes in units of 1/`one`.
    """
    parted = np.uint64(0)
    for p in range(n):
        node, at = packets[p], np.uint64(WORDS * p)
        t, child = nodes[node].threshold, nodes[node].child
        a, b, c, d = masks[at], masks[at + U1], masks[at + U2], masks[at + U3]
        if _is_leaf(nodes, node):
            if nodes[node].pure != MIXED:
                _count_lanes(counts, U_LANES * np.uint64(nodes[node].pure), a, b, c, d)
            else:
                for k in range(votes.shape[1]):
                    _add_lanes(sums, LANES * k, a, b, c, d, votes[child, k])
            continue
        lane = U_LANES * np.uint64(nodes[node].feature)
        left_a, left_b = a & le(values, lane, t), b & le(values, lane + 64, t)
        left_c, left_d = c & le(values, lane + 128, t), d & le(values, lane + 192, t)
        parted = _append(next_packets, next_masks, parted, child, left_a, left_b, left_c, left_d)
        right = np.uint32(child + np.uint32(1))
        parted = _append(next_packets, next_masks, parted, right, a ^ left_a, b ^ left_b, c ^ left_c, d ^ left_d)
    return np.int64(parted)


@njit(**COMPILED)
def _append(packets, masks, n, node, a, b, c, d):
    """Write a packet behind the first `n`, and return n + 1 if it has a pixel; otherwise the next one takes its place."""
    at = n * U_WORDS
    packets[n] = node
    masks[at], masks[at + U1], masks[at + U2], masks[at + U3] = a, b, c, d
    return n + np.uint64((a | b | c | d) != 0)


@njit(**COMPILED)
def _count_lanes(counts, lane, a, b, c, d):
    """Add one to the lanes of four mask words: 64 bytes at a time."""
    count(counts, lane, a)
    count(counts, lane + 64, b)
    count(counts, lane + 128, c)
    count(counts, lane + 192, d)


@njit(**COMPILED)
def _add_lanes(sums, lane, a, b, c, d, amount):
    """Add an amount to the lanes of four mask words."""
    if amount != 0:
        add(sums, lane, a, amount)
        add(sums, lane + 64, b, amount)
        add(sums, lane + 128, c, amount)
        add(sums, lane + 192, d, amount)


@njit(**COMPILED)
def _write(sums, total, place, probabilities, y_at, x_at):
    """Write a tile's probabilities."""
    for k in range(len(probabilities)):
        for j in range(place.height):
            for i in range(place.width):
                share = sums[(k * SIDE + j) * SIDE + i] / total
                probabilities[k, y_at + place.y + j, x_at + place.x + i] = share
