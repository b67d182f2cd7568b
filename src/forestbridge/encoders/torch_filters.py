"""The filter bank on tensors: a tile of raw intensities that lies on a device in, the features of its core on the device out.

    tile ──presmooth──▶ smooth ──derive──▶ Gaussian, Laplacian, gradient, difference of Gaussians, Hessian
                           └───edges───▶ products ──smooth──▶ structure tensor

Kernels, passes and borders are those of `filter_engine`, which explains them, and everything between the float32 input and the float32
features is float64 here too. So the features are equal but for the last bit of a few in a million; where only rounding is left, in even
areas, for 1e-15 of the intensity. That float64 is slow on some GPUs does not matter, because the passes wait for memory.

The arrays are (C, y, x) or (C, z, y, x): the core grown by a margin along the axes in which the filters work. A pass along an axis takes
the margin away.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forestbridge.devices import require_float64, triton_runs_on
from forestbridge.encoders import filter_kernels as fk
from forestbridge.encoders.filters import FilterBank

TINY = float(np.finfo(np.float64).tiny)


def encode(bank: FilterBank, tile: Tensor, core: tuple[slice, ...]) -> Tensor:
    """Return the features of a tile's core.

    Parameters
    ----------
    bank
        Its filters are computed, in its order.
    tile
        (C, y, x) or (C, z, y, x) float32 raw intensities, as `forestbridge.encoders.Encoder.encode` says.
    core
        Where the core lies in it.

    Returns
    -------
    features
        (F, y, x) or (F, z, y, x) float32 on the tile's device: by feature id, scale, input channel, eigenvalue.

    Raises
    ------
    ResourceError
        If the device has no float64.
    """
    require_float64(tile.device)
    ndim, channels = len(core), bank.spec.channels
    size = [pixels.stop - pixels.start for pixels in core]
    features = torch.empty((bank.spec.n_features, *size), dtype=torch.float32, device=tile.device)
    starts = np.cumsum([0, *(channels * f.n_outputs(ndim) for f in bank.filters)]).tolist()
    for scale, in_2d in dict.fromkeys((f.scale, f.in_2d) for f in bank.filters):
        first = {f.feature: start for f, start in zip(bank.filters, starts, strict=False) if f.scale == scale}
        pixels = tile[:, core[0]] if in_2d and ndim == 3 else tile
        for feature, outputs in _filter(pixels, core[-2:] if in_2d else core, scale, list(first)):
            n = len(outputs)
            for k, output in enumerate(outputs):  # input channels, then eigenvalues
                features[first[feature] + k : first[feature] + channels * n : n] = output
    return features


def _filter(
    tile: Tensor, core: tuple[slice, ...], scale: float, features: Sequence[str]
) -> Iterator[tuple[str, tuple[Tensor, ...]]]:
    """Yield the chosen features at one scale.

    Parameters
    ----------
    tile
        (C, ..., y, x) float32.
    core
        One slice for each axis along which the filters work, the last ones of the tile.

    Yields
    ------
    feature, outputs
        Feature id, and one float64 array of the size of the core per eigenvalue (or one in all).
    """
    sigma, axes = fk.filter_sigma(scale), tuple(range(-len(core), 0))
    passes = _Passes(_presmoothed(tile, core, scale, max(fk.filter_radius(f, scale) for f in features)), core)
    for feature in features:
        match feature:
            case "GaussianSmoothing":
                yield feature, (passes.derivative(sigma),)
            case "LaplacianOfGaussian":
                yield feature, (_total([passes.derivative(sigma, a, a) for a in axes]),)
            case "GaussianGradientMagnitude":
                yield feature, (torch.sqrt(_total([passes.derivative(sigma, a).square() for a in axes])),)
            case "DifferenceOfGaussians":
                yield feature, (passes.derivative(sigma) - passes.derivative(fk.INNER_SMOOTHING * sigma),)
            case "StructureTensorEigenvalues":
                reach = fk.radius(sigma, fk.FILTER_WINDOW)
                edges = {a: passes.derivative(fk.TENSOR_GRADIENT * sigma, a, margin=reach) for a in axes}
                products = {(a, b): _reflected(edges[a] * edges[b], tile.shape, core, reach) for a, b in _pairs(axes)}
                tensor = {pair: _Passes(product, core).derivative(sigma) for pair, product in products.items()}
                yield feature, _eigenvalues(tensor, axes)
            case "HessianOfGaussianEigenvalues":
                yield feature, _eigenvalues({(a, b): passes.derivative(sigma, a, b) for a, b in _pairs(axes)}, axes)


class _Passes:
    """Gaussian derivatives of one array; passes that several derivatives begin with are computed once.

    Parameters
    ----------
    pixels
        (C, ..., y, x) float64: the core, and the same margin along all axes in which the filters work.
    core
        One slice for each of these axes.
    """

    def __init__(self, pixels: Tensor, core: tuple[slice, ...]) -> None:
        self.pixels = pixels
        self.axes = tuple(range(-len(core), 0))
        self.margin = (pixels.shape[-1] - (core[-1].stop - core[-1].start)) // 2
        self.done: dict[tuple[float, int, tuple[int, ...]], Tensor] = {}

    def derivative(self, sigma: float, *along: int, margin: int = 0) -> Tensor:
        """Return the array smoothed with `sigma`, derived once along each axis of `along`, with a margin around the core."""
        orders = tuple(along.count(axis) for axis in self.axes)
        result = self.pixels
        for n, axis in enumerate(self.axes):
            key = (sigma, margin, orders[: n + 1])
            if key not in self.done:
                taps = fk.kernel(orders[n], sigma, fk.FILTER_WINDOW)
                self.done[key] = correlate(result, taps, axis, self.margin - margin)
            result = self.done[key]
        return result


def _presmoothed(tile: Tensor, core: tuple[slice, ...], scale: float, margin: int) -> Tensor:
    """Return the smoothed core with a margin, float64; where that lies outside the tile, the tile is continued by reflection."""
    taps = fk.kernel(0, fk.presmoothing_sigma(scale), fk.PRESMOOTHING_WINDOW)
    reach = len(taps) // 2
    pixels = tile
    for axis in range(-len(core), 0):
        start, stop = core[axis].start - margin - reach, core[axis].stop + margin + reach
        if start >= 0 and stop <= tile.shape[axis]:
            pixels = pixels.narrow(axis, start, stop - start)
        else:
            pixels = pixels.index_select(axis, _mirrored(start, stop, tile.shape[axis]).to(tile.device))
    pixels = pixels.double()
    for axis in range(-len(core), 0):
        pixels = correlate(pixels, taps, axis, reach)
    return pixels


def _reflected(product: Tensor, shape: Sequence[int], core: tuple[slice, ...], margin: int) -> Tensor:
    """Fill what a core with a margin has outside a tile of `shape`, by reflection."""
    for axis in range(-len(core), 0):
        start, stop = core[axis].start - margin, core[axis].stop + margin
        if start < 0 or stop > shape[axis]:
            product = product.index_select(axis, (_mirrored(start, stop, shape[axis]) - start).to(product.device))
    return product


def _mirrored(start: int, stop: int, n: int) -> Tensor:
    """Return the pixels, int64, that stand for the pixels from `start` to `stop` of a line of n, reflected as often as it takes."""
    period = max(1, 2 * (n - 1))
    positions = np.abs(np.arange(start, stop)) % period
    return torch.from_numpy(np.where(positions < n, positions, period - positions))


def correlate(pixels: Tensor, taps: NDArray[np.float64], axis: int, cut: int) -> Tensor:
    """Correlate along one axis.

    Parameters
    ----------
    pixels
        (..., y, x) float64.
    taps
        (2·r + 1,).
    cut
        Lines by which the result is shorter at both ends, ≥ r.
    """
    reach, size = len(taps) // 2, pixels.shape[axis] - 2 * cut
    if reach == 0:  # a kernel of radius 0 copies
        return pixels.narrow(axis, cut, size)
    if triton_runs_on(pixels.device):
        from forestbridge.encoders.triton_correlate import correlate_lines

        lines = pixels.narrow(axis, cut - reach, size + 2 * reach)
        return correlate_lines(lines, _taps_on(pixels.device, tuple(taps.tolist())), axis)
    first, *others = taps.tolist()
    result = pixels.narrow(axis, cut - reach, size) * first
    for k, tap in enumerate(others, 1):
        result.add_(pixels.narrow(axis, cut - reach + k, size), alpha=tap)
    return result


@lru_cache(maxsize=256)
def _taps_on(device: torch.device, taps: tuple[float, ...]) -> Tensor:
    """Return the taps, float64, on a device; to upload them for each pass would make it wait."""
    return torch.tensor(taps, dtype=torch.float64, device=device)


def _total(values: Sequence[Tensor]) -> Tensor:
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def _pairs(axes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the elements of a symmetric matrix over the axes."""
    return [(a, b) for a in axes for b in axes if a <= b]


def _eigenvalues(matrix: Mapping[tuple[int, int], Tensor], axes: tuple[int, ...]) -> tuple[Tensor, ...]:
    """Return the eigenvalues of symmetric matrices, the largest one first."""
    if len(axes) == 2:
        y, x = axes
        return _eigenvalues_2d(matrix[y, y], matrix[x, x], matrix[y, x])
    z, y, x = axes
    return _eigenvalues_3d(matrix[z, z], matrix[y, y], matrix[x, x], matrix[z, y], matrix[z, x], matrix[y, x])


def _eigenvalues_2d(yy: Tensor, xx: Tensor, yx: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `eigenvalues.eigenvalues_2d` does."""
    mean = (yy + xx) * 0.5
    half = (yy - xx) * 0.5
    root = torch.sqrt(half * half + yx * yx)
    return mean + root, mean - root


def _eigenvalues_3d(
    zz: Tensor, yy: Tensor, xx: Tensor, zy: Tensor, zx: Tensor, yx: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return what `eigenvalues.eigenvalues_3d` does, where the formula is explained."""
    q = (zz + yy + xx) / 3
    a, b, c = zz - q, yy - q, xx - q
    p = torch.sqrt((a * a + b * b + c * c + 2 * (zy * zy + zx * zx + yx * yx)) / 6)
    det = a * (b * c - yx * yx) - zy * (zy * c - yx * zx) + zx * (zy * yx - b * zx)
    r = det / (2 * p * p * p).clamp_min(TINY)
    sign = torch.where(r >= 0, 1.0, -1.0).to(r.dtype)
    r = r.abs().clamp_max(1.0)
    far = 0.8660254037844386 + 0.1339745962155614 * r
    for _ in range(fk.NEWTON_STEPS):
        far = far - ((4 * far * far - 3) * far - r) / (12 * far * far - 3)
    root = torch.sqrt((3 * (1 - far * far)).clamp_min(0.0))
    lone = q + sign * 2 * p * far
    middle = q + sign * p * (root - far)
    other = q - sign * p * (root + far)
    return torch.maximum(lone, other), middle, torch.minimum(lone, other)
