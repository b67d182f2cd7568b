"""The compiled loop of the engine: a tile of pixels walks each tree together.

    tile 16 × 16                        node: feature f, threshold t
    ┌────────────┐                      low[f] … high[f]: range of f over the tile
    │ ░░░░▒▒▒▒▒▒ │
    │ ░░░░▒▒▒▒▒▒ │     high[f] ≤ t      all pixels go left: one comparison for 256 pixels
    │ ░░░▒▒▒▒▒▒▒ │     low[f]  > t      all pixels go right
    │ ░▒▒▒▒▒▒▒▒▒ │     otherwise        the pixels that are still together (the mask) split in two: ░ left now, ▒ right later
    └────────────┘

Neighbouring pixels resemble each other, so most nodes cost one comparison per tile. Where a split is needed, 256 comparisons in a row
are vector instructions. A mask of few pixels does not fill them: those pixels finish the tree one by one. The features of a tile
(256 lanes each) fit into the L2 cache; the matrix of pixels × features never exists.
"""

import numpy as np
from numba import njit, prange

LANES = 256
"""Pixels of a tile: 16 × 16, or 1 × 256 for a single row."""

FEW = 4
"""Masks of at most so many pixels finish a tree pixel by pixel: a vector of 256 lanes would cost more."""

GROUP = 16
"""Trees whose leaves are summed in float32 before they are added to the float64 total: 16 leaves lose no digit that matters."""

_EXACT = {"boundscheck": False, "error_model": "numpy", "cache": True}


@njit(parallel=True, **_EXACT)
def walk(features, used, feature, threshold, left, roots, leaves, depth, height, width, sums):
    """Sum the leaf fractions of all trees for every pixel.

    Parameters
    ----------
    features
        (F, rows, columns) float32, finite.
    used
        (U,) int32: the features that some split looks at.
    feature
        (nodes,) int32: position in `used` of the feature a split looks at, -1 for a leaf.
    threshold, left, roots, leaves
        As in `forestbridge.forest.PixelForest`.
    depth
        Of the deepest tree.
    height, width
        Of a tile; height · width = LANES.
    sums
        (K, rows, columns) float64, written.
    """
    n_classes = leaves.shape[1]
    rows, columns = features.shape[1:]
    across = (columns + width - 1) // width
    for tile in prange(across * ((rows + height - 1) // height)):
        y0, x0 = tile // across * height, tile % across * width
        h, w = min(height, rows - y0), min(width, columns - x0)
        values = np.empty((len(used), LANES), np.float32)
        low = np.empty(len(used), np.float32)
        high = np.empty(len(used), np.float32)
        for u in range(len(used)):
            _load(features[used[u]], y0, x0, h, w, width, values[u])
            low[u], high[u] = _range(values[u])
        total = np.zeros((n_classes, LANES), np.float64)
        part = np.zeros((n_classes, LANES), np.float32)
        masks = np.empty((depth + 2, LANES), np.uint8)
        waiting = np.empty((depth + 2, 2), np.int32)  # node and number of pixels of each mask that waits
        for t in range(len(roots)):
            _walk_tree(roots[t], values, low, high, feature, threshold, left, leaves, masks, waiting, part)
            if (t + 1) % GROUP == 0 or t + 1 == len(roots):
                for k in range(n_classes):
                    for p in range(LANES):
                        total[k, p] += part[k, p]
                        part[k, p] = 0
        for k in range(n_classes):
            for y in range(h):
                for x in range(w):
                    sums[k, y0 + y, x0 + x] = total[k, y * width + x]


@njit(**_EXACT)
def _load(plane, y0, x0, h, w, width, lanes):
    """Copy a tile of a plane side by side; lanes beyond the plane repeat its first pixel, so that they widen no range."""
    if h * width < LANES or w < width:
        lanes[:] = plane[y0, x0]
    for y in range(h):
        for x in range(w):
            lanes[y * width + x] = plane[y0 + y, x0 + x]


@njit(fastmath={"nnan", "ninf", "nsz", "reassoc", "contract"}, **_EXACT)
def _range(lanes):
    """Return the smallest and the largest value; finite values may be compared in any order, eight or sixteen at a time."""
    low = lanes[0]
    high = lanes[0]
    for p in range(LANES):
        low = min(low, lanes[p])
        high = max(high, lanes[p])
    return low, high


@njit(**_EXACT)
def _walk_tree(root, values, low, high, feature, threshold, left, leaves, masks, waiting, part):
    """Add to every lane of `part` the leaf that it reaches in one tree."""
    node = root
    count = LANES
    depth = 0  # masks[:depth] wait; masks[depth] is the one at work
    masks[0] = 1
    while True:
        f = feature[node]
        if f >= 0 and count > FEW:
            t = threshold[node]
            if high[f] <= t:
                node = left[node]
                continue
            if low[f] > t:
                node = left[node] + 1
                continue
            n_left = _split(values[f], t, masks[depth], masks[depth + 1])
            if n_left == 0:
                node = left[node] + 1
            elif n_left == count:
                masks[depth] = masks[depth + 1]
                node = left[node]
            else:  # the right part waits, the left one goes on above it
                waiting[depth, 0] = left[node] + 1
                waiting[depth, 1] = count - n_left
                depth += 1
                node = left[node]
                count = n_left
            continue
        if f < 0:
            _add_leaf(leaves[left[node]], masks[depth], part)
        else:
            _finish(node, values, feature, threshold, left, leaves, masks[depth], part)
        if depth == 0:
            return
        depth -= 1
        node = waiting[depth, 0]
        count = waiting[depth, 1]


@njit(**_EXACT)
def _split(lanes, t, mask, goes_left):
    """Take the pixels that go left out of `mask` into `goes_left`; return their number."""
    for p in range(LANES):
        here = mask[p] if lanes[p] <= t else np.uint8(0)
        goes_left[p] = here
        mask[p] ^= here
    n_left = np.int32(0)
    for p in range(LANES):
        n_left += np.int32(goes_left[p])
    return n_left


@njit(**_EXACT)
def _add_leaf(fractions, mask, part):
    """Add a leaf to the lanes of the mask."""
    for k in range(len(fractions)):
        fraction = fractions[k]
        if fraction != 0:
            lanes = part[k]
            for p in range(LANES):
                lanes[p] += fraction if mask[p] else np.float32(0)


@njit(**_EXACT)
def _finish(node, values, feature, threshold, left, leaves, mask, part):
    """Walk the few pixels of the mask to their leaves one by one."""
    eights = mask.view(np.uint64)
    for e in range(LANES // 8):
        if eights[e] != 0:
            for p in range(8 * e, 8 * e + 8):
                if mask[p]:
                    n = node
                    while feature[n] >= 0:
                        n = left[n] + np.int32(not (values[feature[n], p] <= threshold[n]))
                    for k in range(part.shape[0]):
                        part[k, p] += leaves[left[n], k]
