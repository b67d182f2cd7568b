"""The filter bank once more, slowly: float64, direct sums over reflected pixels, one output after the other.

Written from the definitions alone; shares nothing with `forestbridge.encoders`: a mistake would have to be made twice.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

IDS = (
    "GaussianSmoothing",
    "LaplacianOfGaussian",
    "GaussianGradientMagnitude",
    "DifferenceOfGaussians",
    "StructureTensorEigenvalues",
    "HessianOfGaussianEigenvalues",
)


def oracle_features(
    image: NDArray, selection: Mapping[str, Sequence[float]], compute_in_2d: Mapping[float, bool]
) -> NDArray[np.float64]:
    """Return all features of an image, in ilastik's order.

    Parameters
    ----------
    image
        (C, y, x) or (C, z, y, x).
    selection
        Feature id → scales in pixels.
    compute_in_2d
        Scale → plane by plane.

    Returns
    -------
    features
        (F, y, x) or (F, z, y, x).
    """
    return np.concatenate(
        [
            _feature(feature, scale, channel.astype(np.float64), compute_in_2d[scale])
            for feature in IDS
            for scale in sorted(selection.get(feature, ()))
            for channel in image
        ]
    )


def allowance(
    image: NDArray, selection: Mapping[str, Sequence[float]], compute_in_2d: Mapping[float, bool], values: NDArray
) -> NDArray[np.float64]:
    """Return by how much each feature may deviate from ilastik: 1e-5·G + 5e-6·I.

    G is the largest magnitude of the feature over the image, for eigenvalues that of all of the same feature and scale.
    I is the largest magnitude of the image, squared for the structure tensor. ilastik computes in float32 throughout;
    its differences of nearly equal numbers are not better than that.

    Returns
    -------
    allowance
        (F,) for the (F, ...) `values` of `oracle_features`.
    """
    intensity = float(np.abs(image).max())
    largest = np.abs(values).reshape(len(values), -1).max(axis=1)
    result, start = np.empty(len(values)), 0
    for feature in IDS:
        for scale in sorted(selection.get(feature, ())):
            eigenvalues = feature.endswith("Eigenvalues")
            n_each = 1 if not eigenvalues else 2 if compute_in_2d[scale] or image.ndim == 3 else 3
            stop = start + n_each * len(image)
            unit = intensity**2 if feature == "StructureTensorEigenvalues" else intensity
            result[start:stop] = 1e-5 * largest[start:stop].max() + 5e-6 * unit
            start = stop
    assert start == len(values)
    return result


def taps(order: int, sigma: float, window: float) -> NDArray[np.float64]:
    """Return a Gaussian (0) or its first or second derivative, for a correlation."""
    reach = math.floor(window * sigma + 0.5)
    if reach == 0:
        return np.ones(1)
    x = np.arange(-reach, reach + 1.0)
    gauss = np.exp(-(x**2) / (2 * sigma**2))
    if order == 0:
        return gauss / gauss.sum()  # a constant stays
    if order == 1:
        slope = x * gauss
        return slope / (slope * x).sum()  # the ramp x becomes 1
    bend = (x**2 / sigma**2 - 1) * gauss
    bend -= bend.mean()  # a constant becomes 0
    return bend / (bend * x**2 / 2).sum()  # the parabola x²/2 becomes 1


def _correlate(pixels: NDArray, axis: int, weights: NDArray) -> NDArray:
    reach = len(weights) // 2
    lines = np.moveaxis(pixels, axis, -1)
    n = lines.shape[-1]
    padded = np.pad(lines, [(0, 0)] * (lines.ndim - 1) + [(reach, reach)], mode="reflect")
    result = np.zeros(lines.shape)
    for k, weight in enumerate(weights):
        result += weight * padded[..., k : k + n]
    return np.moveaxis(result, -1, axis)


def _gauss(pixels: NDArray, axes: Sequence[int], sigma: float, window: float, derive: Sequence[int] = ()) -> NDArray:
    """Smooth along all axes, and derive once along each axis of `derive`."""
    for axis in axes:
        pixels = _correlate(pixels, axis, taps(list(derive).count(axis), sigma, window))
    return pixels


def _feature(feature: str, scale: float, pixels: NDArray, in_2d: bool) -> NDArray:
    """Return (n, y, x) or (n, z, y, x)."""
    axes = tuple(range(pixels.ndim))[-2:] if in_2d else tuple(range(pixels.ndim))
    smooth = _gauss(pixels, axes, math.sqrt(scale**2 - 1) if scale > 1 else scale, 3.5)
    sigma = min(scale, 1.0)
    if feature == "GaussianSmoothing":
        return _gauss(smooth, axes, sigma, 2.0)[None]
    if feature == "LaplacianOfGaussian":
        return np.sum([_gauss(smooth, axes, sigma, 2.0, (a, a)) for a in axes], axis=0)[None]
    if feature == "GaussianGradientMagnitude":
        return np.sqrt(np.sum([_gauss(smooth, axes, sigma, 2.0, (a,)) ** 2 for a in axes], axis=0))[None]
    if feature == "DifferenceOfGaussians":
        return (_gauss(smooth, axes, sigma, 2.0) - _gauss(smooth, axes, 0.66 * sigma, 2.0))[None]
    matrix = np.empty((*pixels.shape, len(axes), len(axes)))
    for i, a in enumerate(axes):
        for j, b in enumerate(axes):
            if feature == "HessianOfGaussianEigenvalues":
                matrix[..., i, j] = _gauss(smooth, axes, sigma, 2.0, (a, b))
            else:
                product = _gauss(smooth, axes, sigma / 2, 2.0, (a,)) * _gauss(smooth, axes, sigma / 2, 2.0, (b,))
                matrix[..., i, j] = _gauss(product, axes, sigma, 2.0)
    return np.moveaxis(np.linalg.eigvalsh(matrix)[..., ::-1], -1, 0)
