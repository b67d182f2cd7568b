"""The filter bank as a torch module of plain operations: raw intensities (b, C, y, x) or (b, C, z, y, x) in, features (b, F, ...) out.

It does what `forestbridge.graphs.filters` does, differences first. torch's own convolution is slow for one channel; a sum of
shifted images is faster.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from forestbridge.encoders import filter_kernels as fk


class FilterBankModule(nn.Module):
    """All filters, as lists with one entry per scale.

    The lists are attributes of fixed types, so that every bank compiles to the same TorchScript class: its name, which stands in the
    file, does not depend on what was compiled before.

    Parameters
    ----------
    filters
        In their order.
    channels
        Number of input channels.
    ndim
        Number of spatial axes.
    """

    channels: int
    n_features: int
    newton_steps: int
    dims: list[list[int]]
    """The axes of the passes: x first, then y, then z, counted from the end."""
    pairs: list[list[tuple[int, int]]]
    """The elements of a symmetric matrix as positions in `dims`: zz, yy, xx, zy, zx, yx or yy, xx, yx."""
    reach: list[int]
    presmoothing: list[list[float]]
    presmoothing_change: list[list[float]]
    smoothing_change: list[list[float]]
    """Kernels on differences that give what smoothing adds to a pixel."""
    smoothing: list[list[list[float]]]
    """Taps of the orders 0 and 1 at the filter's sigma; `inner` and `gradient` smooth with the other sigma of DoG and structure tensor."""
    inner: list[list[float]]
    gradient: list[list[float]]
    slope_taps: list[list[list[float]]]
    """Kernels on differences: first and second derivative, first derivative of the structure tensor (empty where its radius is 0,
    then it copies), difference of Gaussians."""
    first: list[dict[str, int]]
    """Where the outputs of each feature start."""

    def __init__(self, filters: Sequence[fk.Filter], *, channels: int, ndim: int) -> None:
        super().__init__()
        self.channels = channels
        self.newton_steps = fk.NEWTON_STEPS
        self.dims, self.pairs, self.reach, self.first = [], [], [], []
        self.presmoothing, self.smoothing, self.inner, self.gradient, self.slope_taps = [], [], [], [], []
        self.presmoothing_change, self.smoothing_change = [], []
        for scale, in_2d in dict.fromkeys((f.scale, f.in_2d) for f in filters):
            axes = range(2 if in_2d else ndim)
            sigma = fk.filter_sigma(scale)
            self.dims.append([-1 - a for a in axes])
            self.pairs.append(
                [(a, a) for a in reversed(axes)] + [(a, b) for a in reversed(axes) for b in reversed(axes) if b < a]
            )
            self.presmoothing.append(fk.kernel(0, fk.presmoothing_sigma(scale), fk.PRESMOOTHING_WINDOW).tolist())
            self.smoothing.append([fk.kernel(order, sigma, fk.FILTER_WINDOW).tolist() for order in (0, 1)])
            self.inner.append(fk.kernel(0, fk.INNER_SMOOTHING * sigma, fk.FILTER_WINDOW).tolist())
            self.gradient.append(fk.kernel(0, fk.TENSOR_GRADIENT * sigma, fk.FILTER_WINDOW).tolist())
            presmoothing = fk.kernel(0, fk.presmoothing_sigma(scale), fk.PRESMOOTHING_WINDOW)
            self.presmoothing_change.append(fk.smoothing_change(presmoothing).tolist())
            self.smoothing_change.append(fk.smoothing_change(fk.kernel(0, sigma, fk.FILTER_WINDOW)).tolist())
            self.reach.append(fk.radius(sigma, fk.FILTER_WINDOW))
            self.slope_taps.append(_slope_taps(sigma))
            self.first.append({})
        scales = list(dict.fromkeys(f.scale for f in filters))
        self.n_features = 0
        for f in filters:
            self.first[scales.index(f.scale)][f.feature] = self.n_features
            self.n_features += channels * f.n_outputs(ndim)

    def forward(self, raw: Tensor) -> Tensor:
        """Return the features (b, F, ...) of the raw intensities (b, C, ...)."""
        if raw.size(1) != self.channels:
            raise ValueError("expected {} channels, found {}".format(self.channels, raw.size(1)))  # noqa: UP032
        size = [raw.size(0), self.n_features] + list(raw.shape[2:])  # noqa: RUF005
        features = torch.empty(size, dtype=raw.dtype, device=raw.device)
        for s in range(len(self.dims)):
            dims, taps, slope_taps = self.dims[s], self.smoothing[s], self.slope_taps[s]
            slopes: dict[int, Tensor] = {}
            for feature in self.first[s]:
                if feature != "GaussianSmoothing" and len(slopes) == 0 and self.reach[s] > 0:
                    for dim in dims:
                        slopes[dim] = slope(raw, self.presmoothing[s], self.reach[s], dims, dim)
            smooth = smoothed(raw, self.presmoothing_change[s], dims)
            for feature, first in self.first[s].items():
                outputs: list[Tensor] = []
                if feature == "GaussianSmoothing":
                    outputs = [smoothed(smooth, self.smoothing_change[s], dims)]
                elif feature == "LaplacianOfGaussian":
                    outputs = [total([derivative(slopes, smooth, slope_taps[1], taps[0], dims, dim) for dim in dims])]
                elif feature == "GaussianGradientMagnitude":
                    gradient = [derivative(slopes, smooth, slope_taps[0], taps[0], dims, dim) for dim in dims]
                    outputs = [torch.sqrt(total([torch.square(g) for g in gradient]))]
                elif feature == "DifferenceOfGaussians":
                    outputs = [difference_of_gaussians(slopes, smooth, slope_taps[3], taps[0], self.inner[s], dims)]
                elif feature == "StructureTensorEigenvalues":
                    gradient = [derivative(slopes, smooth, slope_taps[2], self.gradient[s], dims, dim) for dim in dims]
                    tensor = [passes(gradient[a] * gradient[b], taps[0], dims, 0) for a, b in self.pairs[s]]
                    outputs = eigenvalues(tensor, self.newton_steps)
                elif feature == "HessianOfGaussianEigenvalues":
                    hessian: list[Tensor] = []
                    for a, b in self.pairs[s]:
                        if a == b:
                            hessian.append(derivative(slopes, smooth, slope_taps[1], taps[0], dims, dims[a]))
                        else:
                            hessian.append(
                                mixed_derivative(slopes, smooth, slope_taps[0], taps, dims, dims[a], dims[b])
                            )
                    outputs = eigenvalues(hessian, self.newton_steps)
                n = len(outputs)
                for k in range(n):  # input channels, then eigenvalues
                    features[:, first + k : first + self.channels * n : n] = outputs[k]
        return features


def _slope_taps(sigma: float) -> list[list[float]]:
    """Return the kernels on differences; empty where a radius is 0."""
    reach = fk.radius(sigma, fk.FILTER_WINDOW)
    outer, inner = (fk.kernel(0, s, fk.FILTER_WINDOW) for s in (sigma, fk.INNER_SMOOTHING * sigma))
    derivatives = [fk.kernel(1, sigma, fk.FILTER_WINDOW), fk.kernel(2, sigma, fk.FILTER_WINDOW)]
    derivatives.append(fk.kernel(1, fk.TENSOR_GRADIENT * sigma, fk.FILTER_WINDOW))
    kernels = [fk.difference_kernel(taps, reach).tolist() if len(taps) > 1 else [] for taps in derivatives]
    difference = outer - np.pad(inner, reach - len(inner) // 2)
    return [*kernels, fk.difference_kernel(difference, reach).tolist()]


def reflected(image: Tensor, width: int, dim: int) -> Tensor:
    """Continue an image at both ends of an axis by reflection, without repeating the edge pixel."""
    size = image.size(dim)
    before = torch.flip(image.narrow(dim, 1, width), [dim])
    after = torch.flip(image.narrow(dim, size - 1 - width, width), [dim])
    return torch.cat([before, image, after], dim)


def correlate(image: Tensor, taps: list[float], dim: int) -> Tensor:
    """Correlate along one axis where the taps lie inside the image."""
    size = image.size(dim) - len(taps) + 1
    result = image.narrow(dim, 0, size) * taps[0]
    for k in range(1, len(taps)):
        result.add_(image.narrow(dim, k, size), alpha=taps[k])
    return result


def passes(image: Tensor, taps: list[float], dims: list[int], skip: int) -> Tensor:
    """Correlate along each axis but `skip` (0 skips none), with reflection at the border."""
    if len(taps) == 1:  # a kernel of radius 0 copies
        return image
    for dim in dims:
        if dim != skip:
            image = correlate(reflected(image, len(taps) // 2, dim), taps, dim)
    return image


def smoothed(image: Tensor, change: list[float], dims: list[int]) -> Tensor:
    """Smooth along each axis, and leave an even area exactly as it is; `graphs.filters` says why.

    Parameters
    ----------
    change
        Kernel on the differences that gives what smoothing adds to a pixel; empty for a radius of 0.
    """
    if len(change) == 0:
        return image
    for dim in dims:
        extended = reflected(image, len(change) // 2, dim)
        size = extended.size(dim) - 1
        differences = extended.narrow(dim, 1, size) - extended.narrow(dim, 0, size)
        image = image + correlate(differences, change, dim)
    return image


def slope(raw: Tensor, presmoothing: list[float], reach: int, dims: list[int], dim: int) -> Tensor:
    """Return the presmoothed differences of neighbouring pixels along one axis, where they reach beyond the image by `reach`."""
    extended = reflected(raw, len(presmoothing) // 2 + reach, dim)
    size = extended.size(dim) - 1
    differences = extended.narrow(dim, 1, size) - extended.narrow(dim, 0, size)
    return passes(correlate(differences, presmoothing, dim), presmoothing, dims, dim)


def derivative(
    slopes: dict[int, Tensor], smooth: Tensor, slope_taps: list[float], taps: list[float], dims: list[int], dim: int
) -> Tensor:
    """Return a derivative along one axis, smoothed along the others.

    Parameters
    ----------
    slopes, smooth
        The presmoothed differences along each axis, and the presmoothed image.
    slope_taps
        Kernel on the differences; empty where the filter's radius is 0, which copies the image.
    taps
        Smoothing along the other axes.
    """
    if len(slope_taps) == 0:
        return smooth
    return passes(correlate(slopes[dim], slope_taps, dim), taps, dims, dim)


def mixed_derivative(
    slopes: dict[int, Tensor],
    smooth: Tensor,
    slope_taps: list[float],
    taps: list[list[float]],
    dims: list[int],
    a: int,
    b: int,
) -> Tensor:
    """Return the derivative along the axes `a` and `b`, smoothed along the third; `taps` by order."""
    if len(slope_taps) == 0:
        return smooth
    result = correlate(slopes[a], slope_taps, a)
    for dim in dims:
        if dim != a:
            order = 1 if dim == b else 0
            result = passes(result, taps[order], [dim], 0)
    return result


def difference_of_gaussians(
    slopes: dict[int, Tensor],
    smooth: Tensor,
    slope_taps: list[float],
    outer: list[float],
    inner: list[float],
    dims: list[int],
) -> Tensor:
    """Return the image smoothed with `outer` minus the image smoothed with `inner`; `graphs.filters` gives the formula."""
    if len(slope_taps) == 0:
        return smooth - smooth
    terms: list[Tensor] = []
    for n in range(len(dims)):
        term = correlate(slopes[dims[n]], slope_taps, dims[n])
        term = passes(term, inner, dims[:n], 0)
        terms.append(passes(term, outer, dims[n + 1 :], 0))
    return total(terms)


def total(values: list[Tensor]) -> Tensor:
    """Add the values."""
    result = values[0]
    for value in values[1:]:
        result = result + value
    return result


def eigenvalues(matrix: list[Tensor], newton_steps: int) -> list[Tensor]:
    """Return the eigenvalues of a symmetric matrix of 3 or 6 elements, the largest one first."""
    if len(matrix) == 3:
        yy, xx, yx = matrix[0], matrix[1], matrix[2]
        mean = (yy + xx) * 0.5
        half = (yy - xx) * 0.5
        root = torch.sqrt(half * half + yx * yx)
        return [mean + root, mean - root]
    return eigenvalues_3d([element.double() for element in matrix], newton_steps)


def eigenvalues_3d(matrix: list[Tensor], newton_steps: int) -> list[Tensor]:
    """Return what `forestbridge.encoders.eigenvalues.eigenvalues_3d` does, where the formula is explained.

    The stacked sum and `addcdiv` are there for the kernel compiler of PyTorch 1.13 and 2.0, which cannot fuse them: it inserts each
    value into all expressions that use it, Newton's steps into one another, and does not come to an end with the plain formula.

    Parameters
    ----------
    matrix
        zz, yy, xx, zy, zx, yx; all float64.
    """
    zz, yy, xx, zy, zx, yx = matrix[0], matrix[1], matrix[2], matrix[3], matrix[4], matrix[5]
    q = (zz + yy + xx) / 3.0
    a, b, c = zz - q, yy - q, xx - q
    p = torch.sqrt((a * a + b * b + c * c + 2.0 * (zy * zy + zx * zx + yx * yx)) / 6.0)
    minors = torch.stack([b * c - yx * yx, yx * zx - zy * c, zy * yx - b * zx])
    det = (torch.stack([a, zy, zx]) * minors).sum(0)
    r = det / torch.clamp(2.0 * p * p * p, min=2.2250738585072014e-308)
    sign = (r >= 0).double() * 2.0 - 1.0
    r = torch.clamp(torch.abs(r), max=1.0)
    far = 0.8660254037844386 + 0.1339745962155614 * r
    for _ in range(newton_steps):
        square = far * far
        far = torch.addcdiv(far, (4.0 * square - 3.0) * far - r, 12.0 * square - 3.0, value=-1.0)
    root = torch.sqrt(torch.clamp(3.0 * (1.0 - far * far), min=0.0))
    signed = sign * p
    lone = q + 2.0 * signed * far
    middle = q + signed * (root - far)
    other = q - signed * (root + far)
    return [torch.maximum(lone, other).float(), middle.float(), torch.minimum(lone, other).float()]
