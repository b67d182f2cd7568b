"""Eigenvalues of a symmetric 2 × 2 or 3 × 3 matrix, compiled; the graphs repeat the same operations."""

import math

import numpy as np
from numba import njit

from forestbridge.compiled import EXACT
from forestbridge.encoders.filter_kernels import NEWTON_STEPS

TINY = np.finfo(np.float64).tiny


@njit(inline="always", **EXACT)
def eigenvalues_2d(yy, xx, yx):
    """Return the eigenvalues of [[yy, yx], [yx, xx]], all float64, the larger one first."""
    mean = (yy + xx) * 0.5
    half = (yy - xx) * 0.5
    root = math.sqrt(half * half + yx * yx)
    return mean + root, mean - root


@njit(inline="always", **EXACT)
def eigenvalues_3d(zz, yy, xx, zy, zx, yx):
    """Return the eigenvalues of [[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]], all float64, the largest one first.

    With q the mean eigenvalue and p the spread, the eigenvalues are q + 2p·c where c solves Viète's 4c³ - 3c = r with
    r = det((A - q)/p)/2. The textbook takes c from arccos, which loses half the digits where two eigenvalues meet (r
    = ±1). Instead the root that is far from the other two is found by Newton's method for |r|, where it is well
    conditioned (c from √3/2 to 1), and the other two come from the remaining quadratic.

    ilastik uses the textbook's form in float32. Where two eigenvalues nearly meet its values deviate from the exact
    ones by 1e-4 to 1e-3 of the largest element, differently on different processors: about one voxel in 10 000 at
    scales 0.7 to 2.3.
    """
    q = (zz + yy + xx) / 3
    a, b, c = zz - q, yy - q, xx - q
    p = math.sqrt((a * a + b * b + c * c + 2 * (zy * zy + zx * zx + yx * yx)) / 6)
    det = a * (b * c - yx * yx) - zy * (zy * c - yx * zx) + zx * (zy * yx - b * zx)
    r = det / max(2 * p * p * p, TINY)  # three equal eigenvalues: p = det = r = 0
    sign = 1.0 if r >= 0 else -1.0
    r = min(abs(r), 1.0)
    far = 0.8660254037844386 + 0.1339745962155614 * r  # the chord from (0, √3/2) to (1, 1)
    for _ in range(NEWTON_STEPS):
        far -= ((4 * far * far - 3) * far - r) / (12 * far * far - 3)
    root = math.sqrt(max(3 * (1 - far * far), 0.0))
    lone = q + sign * 2 * p * far
    middle = q + sign * p * (root - far)
    other = q - sign * p * (root + far)
    return max(lone, other), middle, min(lone, other)  # for r ≥ 0 the lone one is the largest, otherwise the smallest
