"""The filter bank with scipy's 1-D correlations over whole arrays, in float64: slow and plain, what the compiled one is held against.

It shares the kernels, so that the two can be compared to the last digits and at any size; `filter_oracle` shares nothing.
`scripts/bench` times it.
"""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from forestbridge.encoders import filter_kernels as fk
from forestbridge.encoders.filters import FilterBank


def encode(bank: FilterBank, tile: NDArray[np.float32], core: tuple[slice, ...]) -> NDArray[np.float32]:
    """Return what ``bank.encode(tile, core)`` has to: (F, y, x) or (F, z, y, x) float32."""
    ndim = len(core)
    found = {}
    for channel, pixels in enumerate(tile):
        for scale, in_2d in dict.fromkeys((f.scale, f.in_2d) for f in bank.filters):
            axes = tuple(range(ndim))[-2:] if in_2d else tuple(range(ndim))
            chosen = [f.feature for f in bank.filters if f.scale == scale]
            for feature, outputs in _filter(pixels.astype(np.float64), scale, axes, chosen):
                found[feature, scale, channel] = [output[core].astype(np.float32) for output in outputs]
    channels = range(len(tile))
    return np.stack([m for f in bank.filters for c in channels for m in found[f.feature, f.scale, c]])


def _filter(
    pixels: NDArray[np.float64], scale: float, axes: tuple[int, ...], features: Sequence[str]
) -> Iterator[tuple[str, tuple[NDArray[np.float64], ...]]]:
    """Yield the chosen features of one channel at one scale.

    Parameters
    ----------
    pixels
        (y, x) or (z, y, x) float64.
    axes
        The axes along which the filters work.

    Yields
    ------
    feature, outputs
        Feature id, and one array of the shape of `pixels` per eigenvalue (or one in all).
    """
    smooth = pixels
    for axis in reversed(axes):
        smooth = _pass(smooth, axis, fk.kernel(0, fk.presmoothing_sigma(scale), fk.PRESMOOTHING_WINDOW))
    sigma = fk.filter_sigma(scale)
    passes = _Passes(smooth, axes)
    for feature in features:
        match feature:
            case "GaussianSmoothing":
                yield feature, (passes.derivative(sigma),)
            case "LaplacianOfGaussian":
                yield feature, (sum(passes.derivative(sigma, a, a) for a in axes),)  # pyright: ignore[reportReturnType]
            case "GaussianGradientMagnitude":
                yield feature, (np.sqrt(sum(np.square(passes.derivative(sigma, a)) for a in axes)),)
            case "DifferenceOfGaussians":
                yield feature, (passes.derivative(sigma) - passes.derivative(fk.INNER_SMOOTHING * sigma),)
            case "StructureTensorEigenvalues":
                gradient = {a: passes.derivative(fk.TENSOR_GRADIENT * sigma, a) for a in axes}
                tensor = {(a, b): _Passes(gradient[a] * gradient[b], axes).derivative(sigma) for a, b in _pairs(axes)}
                yield feature, _eigenvalues(tensor, axes)
            case "HessianOfGaussianEigenvalues":
                yield feature, _eigenvalues({(a, b): passes.derivative(sigma, a, b) for a, b in _pairs(axes)}, axes)


def _pairs(axes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the elements of a symmetric matrix over the axes."""
    return [(a, b) for a in axes for b in axes if a <= b]


def _eigenvalues(matrix: Mapping[tuple[int, int], NDArray], axes: tuple[int, ...]) -> tuple[NDArray[np.float64], ...]:
    if len(axes) == 2:
        y, x = axes
        return eigenvalues_2d(matrix[y, y], matrix[x, x], matrix[y, x])
    z, y, x = axes
    return eigenvalues_3d(matrix[z, z], matrix[y, y], matrix[x, x], matrix[z, y], matrix[z, x], matrix[y, x])


class _Passes:
    """Gaussian derivatives of one array; passes that several derivatives begin with are computed once."""

    def __init__(self, pixels: NDArray[np.float64], axes: tuple[int, ...]) -> None:
        self.pixels = pixels
        self.axes = axes
        self.done: dict[tuple[float, tuple[int, ...]], NDArray[np.float64]] = {}

    def derivative(self, sigma: float, *along: int) -> NDArray[np.float64]:
        """Return the array smoothed with `sigma`, derived once along each axis of `along`."""
        orders = tuple(along.count(axis) for axis in reversed(self.axes))  # x first, then y, then z
        result = self.pixels
        for n, axis in enumerate(reversed(self.axes)):
            key = (sigma, orders[: n + 1])
            if key not in self.done:
                self.done[key] = _pass(result, axis, fk.kernel(orders[n], sigma, fk.FILTER_WINDOW))
            result = self.done[key]
        return result


def _pass(pixels: NDArray[np.float64], axis: int, taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Correlate along one axis; scipy's "mirror" reflects without repeating the edge pixel."""
    if len(taps) == 1:
        return pixels
    return np.asarray(correlate1d(pixels, taps, axis=axis, mode="mirror"), np.float64)


def eigenvalues_2d(yy: NDArray, xx: NDArray, xy: NDArray) -> tuple[NDArray, NDArray]:
    """Return the eigenvalues of [[yy, xy], [xy, xx]], the larger one first; all arrays (...) float64."""
    mean = (yy + xx) * 0.5
    half = (yy - xx) * 0.5
    root = np.sqrt(half * half + xy * xy)
    return mean + root, mean - root


def eigenvalues_3d(
    zz: NDArray, yy: NDArray, xx: NDArray, zy: NDArray, zx: NDArray, yx: NDArray
) -> tuple[NDArray, NDArray, NDArray]:
    """Return the eigenvalues of [[zz, zy, zx], [zy, yy, yx], [zx, yx, xx]], the largest one first.

    With q the mean eigenvalue and p the spread, the eigenvalues are q + 2p·c where c solves Viète's 4c³ - 3c = r with
    r = det((A - q)/p)/2. The textbook takes c from arccos, which loses half the digits where two eigenvalues meet (r
    = ±1). Instead the root that is far from the other two is found by Newton's method for |r|, where it is well
    conditioned (c from √3/2 to 1), and the other two come from the remaining quadratic.

    ilastik uses the textbook's form in float32. Where two eigenvalues nearly meet its values deviate from the exact
    ones by 1e-4 to 1e-3 of the largest element, differently on different processors: about one voxel in 10 000 at
    scales 0.7 to 2.3.

    Parameters
    ----------
    zz, yy, xx, zy, zx, yx
        (...) float64 elements.

    Returns
    -------
    largest, middle, smallest
        (...) float64.
    """
    q = (zz + yy + xx) / 3
    a, b, c = zz - q, yy - q, xx - q
    p = np.sqrt((a * a + b * b + c * c + 2 * (zy * zy + zx * zx + yx * yx)) / 6)
    det = a * (b * c - yx * yx) - zy * (zy * c - yx * zx) + zx * (zy * yx - b * zx)
    r = det / np.maximum(2 * p * p * p, np.finfo(np.float64).tiny)  # three equal eigenvalues: p = det = r = 0
    positive = r >= 0
    r = np.minimum(np.abs(r), 1.0)
    far = 0.8660254037844386 + 0.1339745962155614 * r  # the chord from (0, √3/2) to (1, 1)
    for _ in range(fk.NEWTON_STEPS):
        far = far - ((4 * far * far - 3) * far - r) / (12 * far * far - 3)
    root = np.sqrt(np.maximum(3 * (1 - far * far), 0.0))
    sign = np.where(positive, 1.0, -1.0)
    lone = q + sign * 2 * p * far
    middle = q + sign * p * (root - far)
    other = q - sign * p * (root + far)
    # For r ≥ 0 the order is lone, middle, other; for r < 0 the signs turn it round: other, middle, lone.
    largest = np.where(positive, lone, other)
    smallest = np.where(positive, other, lone)
    return largest, middle, smallest
