"""The definition of the filter bank: features, names, kernels and radii, as ilastik computes them with fastfilters.

A feature at scale s is computed in two steps: the image is smoothed with `presmoothing_sigma(s)` and window 3.5, then
the filter runs on the result with sigma ``filter_sigma(s) = min(s, 1)`` and window 2. For s ≤ 1 that smooths twice
with s; it is what ilastik does. The structure tensor takes its gradients at half the filter's sigma and smooths their
products with the whole one (ilastik's Python code reads the other way round; fastfilters exchanges the two).

References
----------
Berg, S. et al. (2019) ilastik: interactive machine learning for (bio)image analysis. doi:10.1038/s41592-019-0582-9
"""

import math
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FEATURE_NAMES = {
    "GaussianSmoothing": "Gaussian Smoothing",
    "LaplacianOfGaussian": "Laplacian of Gaussian",
    "GaussianGradientMagnitude": "Gaussian Gradient Magnitude",
    "DifferenceOfGaussians": "Difference of Gaussians",
    "StructureTensorEigenvalues": "Structure Tensor Eigenvalues",
    "HessianOfGaussianEigenvalues": "Hessian of Gaussian Eigenvalues",
}
"""ilastik's feature ids in the order in which it stacks them, with the names it shows."""

DEFAULT_SCALES = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
"""The scales of ilastik's dialog, in pixels."""

DEFAULT_SELECTION = {
    feature: DEFAULT_SCALES if feature == "GaussianSmoothing" else DEFAULT_SCALES[1:] for feature in FEATURE_NAMES
}
"""All 37 pairs that the dialog allows: 0.3 only for smoothing. 49 features per input channel in 2D, 61 in 3D."""

MAX_SCALE = 100.0
"""Largest scale in pixels: its kernel has 700 taps and its halo is 353 pixels; shrink the image for larger structures."""

PRESMOOTHING_WINDOW = 3.5
FILTER_WINDOW = 2.0
INNER_SMOOTHING = 0.66
"""The difference of Gaussians subtracts smoothing at 0.66 of the filter's sigma."""
TENSOR_GRADIENT = 0.5
"""The structure tensor takes its gradients at 0.5 of the filter's sigma."""

NEWTON_STEPS = 4
"""For the eigenvalues of 3 × 3 matrices: from a start with an error below 0.02 Newton's method reaches double precision in four."""

EIGENVALUE_FEATURES = ("StructureTensorEigenvalues", "HessianOfGaussianEigenvalues")


class Filter(NamedTuple):
    """One selected (feature, scale) pair."""

    feature: str
    scale: float
    in_2d: bool

    def n_outputs(self, ndim: int) -> int:
        """Return the number of features per input channel for an encoder of `ndim` spatial axes."""
        if self.feature not in EIGENVALUE_FEATURES:
            return 1
        return 2 if self.in_2d else ndim


def radius(sigma: float, window: float) -> int:
    """Return the radius of a kernel in pixels; the same for all derivative orders, and possibly 0."""
    return math.floor(window * sigma + 0.5)


def presmoothing_sigma(scale: float) -> float:
    """Return the sigma of the first step for a scale."""
    return math.sqrt(scale * scale - 1) if scale > 1 else scale


def filter_sigma(scale: float) -> float:
    """Return the sigma of the second step for a scale."""
    return min(scale, 1.0)


def filter_radius(feature: str, scale: float) -> int:
    """Return the reach of the second step in pixels."""
    sigma = filter_sigma(scale)
    if feature == "StructureTensorEigenvalues":
        return radius(TENSOR_GRADIENT * sigma, FILTER_WINDOW) + radius(sigma, FILTER_WINDOW)
    return radius(sigma, FILTER_WINDOW)


def halo(filters: Sequence[Filter]) -> int:
    """Return how far the filters look, in pixels."""
    return max(
        (radius(presmoothing_sigma(f.scale), PRESMOOTHING_WINDOW) + filter_radius(f.feature, f.scale) for f in filters),
        default=0,
    )


@lru_cache(maxsize=256)
def kernel(order: int, sigma: float, window: float) -> NDArray[np.float64]:
    """Return the taps of a Gaussian derivative for a correlation.

    Parameters
    ----------
    order
        0 smoothing, 1 first derivative, 2 second derivative.
    sigma
        In pixels, > 0.
    window
        Radius in units of sigma.

    Returns
    -------
    taps
        (2·radius + 1,) float64: sum 1 (order 0); response 1 to a unit ramp (order 1); response 1 to x²/2 and 0 to a
        constant (order 2). A kernel of radius 0 copies, whatever its order. fastfilters rounds its taps to float32, which
        lets 1e-8 of the intensity pass through a derivative.
    """
    if order not in (0, 1, 2):
        raise ValueError(f"expected order 0, 1 or 2, found {order}")
    r = radius(sigma, window)
    if r == 0:
        return np.ones(1)
    x = np.arange(-r, r + 1, dtype=np.float64)
    taps = np.exp(-x * x / (2 * sigma * sigma))
    if order == 0:
        taps /= taps.sum()
    elif order == 1:
        taps *= x
        taps /= (x * taps).sum()
    else:
        taps *= x * x / (sigma * sigma) - 1
        taps -= taps.mean()
        taps /= (x * x * taps).sum() / 2
    taps.setflags(write=False)
    return taps


def difference_kernel(taps: NDArray[np.float64], reach: int) -> NDArray[np.float64]:
    """Return the kernel that does to the differences of a line what a derivative does to the line itself.

    Σ taps[k]·p[i+k] over k = -r..r equals Σ result[j]·(p[i+j+1] - p[i+j]) over j = -reach..reach-1, because the taps sum to 0
    (summation by parts). In float32 the second form keeps the digits that the first one loses where p changes little: the
    exported graphs use it.

    Parameters
    ----------
    taps
        (2·radius + 1,) of a derivative, or of a difference of two smoothings.
    reach
        ≥ radius; zeros fill up the rest.

    Returns
    -------
    kernel
        (2·reach,) float64.
    """
    return -np.cumsum(np.pad(taps, reach - len(taps) // 2))[:-1]


def smoothing_change(taps: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the kernel on the differences of a line that gives what smoothing with `taps` adds to the line.

    Parameters
    ----------
    taps
        (2·radius + 1,) with sum 1.

    Returns
    -------
    kernel
        (2·radius,) float64.
    """
    change = taps.copy()
    change[len(taps) // 2] -= 1
    return difference_kernel(change, len(taps) // 2)


def select_filters(selection: Mapping[str, Sequence[float]], in_2d: Mapping[float, bool]) -> tuple[Filter, ...]:
    """Return the selected filters in ilastik's order: feature ids, then scales ascending.

    Parameters
    ----------
    selection
        Feature id → scales in pixels.
    in_2d
        Scale → whether its filters work plane by plane.

    Raises
    ------
    ValueError
        If a feature id is not known, a scale is not a positive number or stands there twice, or nothing is selected.
    """
    if unknown := set(selection) - set(FEATURE_NAMES):
        raise ValueError(f"expected the feature ids {', '.join(FEATURE_NAMES)}, found {', '.join(sorted(unknown))}")
    for feature, scales in selection.items():
        if any(not 0 < s <= MAX_SCALE for s in scales) or len(set(scales)) != len(scales):
            raise ValueError(
                f"expected different scales > 0 and up to {MAX_SCALE:g} for {feature}, in pixels, found {list(scales)}"
            )
    filters = tuple(
        Filter(feature, float(scale), in_2d[scale])
        for feature in FEATURE_NAMES
        for scale in sorted(selection.get(feature, ()))
    )
    if not filters:
        raise ValueError("expected at least one feature and scale, found an empty selection")
    return filters


def feature_names(filters: Sequence[Filter], channels: int, ndim: int) -> tuple[str, ...]:
    """Return the names that ilastik gives to the features, e.g. "Hessian of Gaussian Eigenvalues (σ=1.6) in 2D [1]".

    The number in brackets counts over input channels × eigenvalues; it is left out where there is only one.
    """
    names = []
    for f in filters:
        name = f"{FEATURE_NAMES[f.feature]} (σ={f.scale})" + (" in 2D" if f.in_2d else "")
        n = channels * f.n_outputs(ndim)
        names += [name] if n == 1 else [f"{name} [{k}]" for k in range(n)]
    return tuple(names)
