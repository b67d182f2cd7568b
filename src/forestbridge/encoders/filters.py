"""The filter bank of ilastik: from a tile of raw intensities to smoothing, edge and texture features at several scales.

Values follow ilastik 1.4 with fastfilters to float32 rounding, borders included: each pass reflects at the image's
border without repeating the edge pixel. Everything between the float32 input and the float32 features is float64: derivatives
at large scales are small differences of large numbers, and rounding them in between would make 1e-4 of their value noise, which
no other program could repeat. One exception: where two eigenvalues in 3D nearly meet, ours are the exact
ones (`eigenvalues.eigenvalues_3d`). Definitions stand in `filter_kernels`; needs no weights.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import correlate1d

from forestbridge.encoders import filter_kernels as fk
from forestbridge.encoders.eigenvalues import eigenvalues_2d, eigenvalues_3d
from forestbridge.spec import EncoderSpec, MapSpec

VERSION = 1
"""Raised when the same image would give other values."""

MAP_NAME = "filters"


def open_filter_bank(
    *,
    selection: Mapping[str, Sequence[float]] = fk.DEFAULT_SELECTION,
    channels: int = 1,
    compute_in_2d: bool | Mapping[float, bool] = True,
) -> "FilterBank":
    """Make a filter bank.

    Parameters
    ----------
    selection
        Feature id → scales in pixels, e.g. ``{"GaussianSmoothing": [0.3, 0.7], "StructureTensorEigenvalues": [1.6]}``;
        any scale > 0. By default the 37 pairs that ilastik's dialog allows.
    channels
        Number of input channels; each gets all filters.
    compute_in_2d
        True: plane by plane; False: filters along z too; or one answer per selected scale, as ilastik keeps it.

    Raises
    ------
    ValueError
        If the selection is empty or has unknown ids, a scale has no answer in `compute_in_2d`, or `channels` < 1.
    """
    if channels < 1:
        raise ValueError(f"expected at least one input channel, found {channels}")
    scales = sorted({float(s) for chosen in selection.values() for s in chosen})
    in_2d = dict.fromkeys(scales, compute_in_2d) if isinstance(compute_in_2d, bool) else dict(compute_in_2d)
    if missing := [s for s in scales if s not in in_2d]:
        raise ValueError(f"expected compute_in_2d for each of the scales {scales}, found none for {missing}")
    filters = fk.select_filters(selection, in_2d)
    ndim = 2 if all(f.in_2d for f in filters) else 3
    halo = (fk.halo(filters),) * 2
    if ndim == 3:
        halo = (fk.halo([f for f in filters if not f.in_2d]), *halo)
    spec = EncoderSpec(
        name="filters",
        version=VERSION,
        axes="yx" if ndim == 2 else "zyx",
        channels=channels,
        intensity={"rule": "raw"},
        halo=halo,
        maps=(MapSpec(MAP_NAME, fk.feature_names(filters, channels, ndim)),),
        options={
            "selection": {feature: [f.scale for f in filters if f.feature == feature] for feature in fk.FEATURE_NAMES},
            "scales": scales,
            "compute_in_2d": [in_2d[s] for s in scales],
        },
    )
    return FilterBank(spec, filters)


def filter_bank_from_spec(spec: EncoderSpec) -> "FilterBank":
    """Make the filter bank of a spec.

    Raises
    ------
    ValueError
        If the spec's options do not give this spec: another version of the arithmetic, or a spec that was edited.
    """
    try:
        in_2d = dict(zip(spec.options["scales"], spec.options["compute_in_2d"], strict=True))
        bank = open_filter_bank(selection=spec.options["selection"], channels=spec.channels, compute_in_2d=in_2d)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(
            f"expected a filter bank's selection, scales and compute_in_2d in the spec, found {dict(spec.options)}"
        ) from error
    if bank.spec.fingerprint() != spec.fingerprint():
        raise ValueError(
            f"expected filter bank version {VERSION} [{bank.spec.fingerprint()}], "
            f"found version {spec.version} [{spec.fingerprint()}]; "
            "use the forestbridge that made it, or extract and train again"
        )
    return bank


@dataclass(frozen=True)
class FilterBank:
    """The filter bank as an encoder."""

    spec: EncoderSpec
    filters: tuple[fk.Filter, ...]

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return the features of a tile's core.

        Parameters
        ----------
        tile
            (C, y, x) or (C, z, y, x) float32 raw intensities, as `forestbridge.encoders.Encoder.encode` says.
        core
            Where the core lies in it.

        Returns
        -------
        maps
            One (F, y, x) or (F, z, y, x) float32 array: by feature id, scale, input channel, eigenvalue.
        """
        ndim = len(core)
        shape = tuple(s.stop - s.start for s in core)
        position = _positions(self.filters, self.spec.channels, ndim)
        features = np.empty((self.spec.n_features, *shape), np.float32)
        for channel, pixels in enumerate(tile):
            for scale, in_2d in dict.fromkeys((f.scale, f.in_2d) for f in self.filters):
                axes = tuple(range(ndim))[-2:] if in_2d else tuple(range(ndim))
                chosen = [f.feature for f in self.filters if f.scale == scale]
                for feature, outputs in _filter(pixels.astype(np.float64), scale, axes, chosen):
                    first = position[feature, scale] + channel * len(outputs)
                    for k, output in enumerate(outputs):
                        features[first + k] = output[core]
        return (features,)


def _positions(filters: Sequence[fk.Filter], channels: int, ndim: int) -> dict[tuple[str, float], int]:
    """Return where the features of each filter start."""
    positions, start = {}, 0
    for f in filters:
        positions[f.feature, f.scale] = start
        start += channels * f.n_outputs(ndim)
    return positions


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
