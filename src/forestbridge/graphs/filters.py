"""The filter bank as an ONNX graph: raw intensities (b, C, y, x) or (b, C, z, y, x) in, features (b, F, ...) out.

The graph does what `forestbridge.encoders.filters` does, in float32: ONNX has no float64 convolution. `_Image` says how it keeps
the digits that matter all the same.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders import filter_kernels as fk
from forestbridge.encoders.filters import filter_bank_from_spec
from forestbridge.graphs.builder import GraphBuilder, Shape
from forestbridge.graphs.deviation import Deviation, measure_filters, onnx_runner
from forestbridge.spec import EncoderSpec

DOUBLE = 11
"""ONNX's number for float64, FLOAT's is 1."""

RANK = 5
"""Planes are convolved as volumes of one slice: for 2D convolutions ONNX Runtime computes blocks of 8 or 16 channels even where there
is one, which takes three times as long and rounds otherwise."""


def export_filters_onnx(spec: EncoderSpec, path: str | Path) -> Deviation:
    """Write the filter bank of a spec; input ``raw``, output ``filters``.

    Returns
    -------
    deviation
        From `FilterBank.encode` on an image with intensities from 0 to 1.

    Raises
    ------
    ValueError
        If the spec is not one of this version's filter bank.
    OutputExistsError, ResourceError
        If the path exists, or its folder cannot be written.
    """
    bank = filter_bank_from_spec(spec)
    graph = GraphBuilder("filters")
    raw = graph.input("raw", image_shape(spec.channels, spec.axes))
    add_filters(graph, raw, bank.filters, channels=spec.channels, ndim=len(spec.axes), output="filters")
    graph.output("filters", image_shape(spec.n_features, spec.axes))
    graph.write(path)
    return measure_filters(bank, onnx_runner(path))


def minimum_size(spec: EncoderSpec) -> tuple[int, ...]:
    """Return the smallest image a filter bank's graph takes, per axis of the spec: an axis must be longer than each reflection."""
    sizes = []
    for axis in spec.axes:
        filters = [f for f in filter_bank_from_spec(spec).filters if axis != "z" or not f.in_2d]
        reach = max(
            fk.radius(fk.presmoothing_sigma(f.scale), fk.PRESMOOTHING_WINDOW)
            + fk.radius(fk.filter_sigma(f.scale), fk.FILTER_WINDOW)
            for f in filters
        )
        sizes.append(reach + 1)
    return tuple(sizes)


def image_shape(channels: int, axes: str) -> Shape:
    """Return the shape of a graph's input or output: everything varies but the channels."""
    return ("batch", channels, *axes)


def add_filters(
    graph: GraphBuilder, raw: str, filters: Sequence[fk.Filter], *, channels: int, ndim: int, output: str | None = None
) -> str:
    """Add the filters to a graph.

    Parameters
    ----------
    raw
        Name of the (b, C, y, x) or (b, C, z, y, x) input.
    output
        Name for the result.

    Returns
    -------
    features
        Name of the (b, F, ...) tensor: filters in their order, then input channels, then eigenvalues.
    """
    flat = RANK - 2 - ndim
    volume = graph.node("Unsqueeze", raw, graph.constant(np.array([2]))) if flat else raw  # (b, C, 1, y, x)
    planes = [volume]
    if channels > 1:
        planes = graph.nodes("Split", volume, outputs=[f"channel_{c}" for c in range(channels)], axis=1)
    found: dict[tuple[str, float, int], Sequence[str]] = {}
    for c, plane in enumerate(planes):
        for scale, in_2d in dict.fromkeys((f.scale, f.in_2d) for f in filters):
            axes = tuple(range(RANK))[-2 if in_2d else -ndim :]
            chosen = [f.feature for f in filters if f.scale == scale]
            for feature, outputs in _filter(_Image(graph, plane, scale, axes), chosen):
                found[feature, scale, c] = outputs
    ordered = [name for f in filters for c in range(channels) for name in found[f.feature, f.scale, c]]
    if not flat:
        return graph.node("Concat", *ordered, axis=1, output=output)
    features = graph.node("Concat", *ordered, axis=1)  # (b, F, 1, y, x)
    return graph.node("Squeeze", features, graph.constant(np.array([2])), output=output)


def _filter(image: "_Image", features: Sequence[str]) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield the chosen features of one channel at one scale, each with the names of its outputs."""
    graph, axes, sigma = image.graph, image.axes, image.sigma
    for feature in features:
        match feature:
            case "GaussianSmoothing":
                yield feature, [image.derivative(sigma)]
            case "LaplacianOfGaussian":
                yield feature, [_sum(graph, [image.derivative(sigma, a, a) for a in axes])]
            case "GaussianGradientMagnitude":
                gradient = [image.derivative(sigma, a) for a in axes]
                yield feature, [graph.node("Sqrt", _sum(graph, [graph.node("Mul", g, g) for g in gradient]))]
            case "DifferenceOfGaussians":
                yield feature, [image.difference_of_gaussians(fk.INNER_SMOOTHING * sigma)]
            case "StructureTensorEigenvalues":
                gradient = {a: image.derivative(fk.TENSOR_GRADIENT * sigma, a) for a in axes}
                tensor = {}
                for a, b in _pairs(axes):
                    product = graph.node("Mul", gradient[a], gradient[b])
                    tensor[a, b] = image.passes(product, {axis: fk.kernel(0, sigma, fk.FILTER_WINDOW) for axis in axes})
                yield feature, _eigenvalues(graph, tensor, axes)
            case "HessianOfGaussianEigenvalues":
                hessian = {(a, b): image.derivative(sigma, a, b) for a, b in _pairs(axes)}
                yield feature, _eigenvalues(graph, hessian, axes)


class _Image:
    """One channel at one scale: its derivatives; passes that several of them begin with are added once.

    Derivatives are taken of the differences between neighbouring pixels (`fk.difference_kernel`), which are smoothed in place of the
    pixels: differences of raw intensities are exact, while a smoothed image has lost the digits in which its neighbours differ.
    """

    def __init__(self, graph: GraphBuilder, raw: str, scale: float, axes: tuple[int, ...]) -> None:
        self.graph = graph
        self.raw = raw
        self.axes = axes
        self.sigma = fk.filter_sigma(scale)
        self.reach = fk.radius(self.sigma, fk.FILTER_WINDOW)
        self.presmoothing = fk.kernel(0, fk.presmoothing_sigma(scale), fk.PRESMOOTHING_WINDOW)
        self.done: dict[tuple[str, str, bytes], str] = {}

    def smoothed(self) -> str:
        """Add the presmoothed image."""
        return self._smooth(self.raw, self.presmoothing)

    def slope(self, axis: int) -> str:
        """Add the presmoothed differences along one axis; there they reach beyond the image by `reach` at both ends."""
        extended = self._pad(self.raw, axis, len(self.presmoothing) // 2 + self.reach)
        result = self._conv(self._conv(extended, axis, np.array([-1.0, 1.0])), axis, self.presmoothing)
        return self.passes(result, {a: self.presmoothing for a in reversed(self.axes) if a != axis})

    def derivative(self, sigma: float, *along: int) -> str:
        """Add the image smoothed with `sigma`, derived once along each axis of `along`."""
        taps = {a: fk.kernel(along.count(a), sigma, fk.FILTER_WINDOW) for a in reversed(self.axes)}
        if not along or fk.radius(sigma, fk.FILTER_WINDOW) == 0:  # a kernel of radius 0 copies, whatever its order
            return self._smooth(self.smoothed(), fk.kernel(0, sigma, fk.FILTER_WINDOW))
        return self._of_slope(along[0], taps)

    def difference_of_gaussians(self, inner: float) -> str:
        """Add the image smoothed with the filter's sigma minus the image smoothed with `inner`.

        G(x)·G(y) - g(x)·g(y) = (G - g)(x)·G(y) + g(x)·(G - g)(y), and so on along z: each term has one factor without a mean.
        """
        outer = fk.kernel(0, self.sigma, fk.FILTER_WINDOW)
        small = fk.kernel(0, inner, fk.FILTER_WINDOW)
        if self.reach == 0:
            return self.graph.node("Sub", self.smoothed(), self.smoothed())
        difference = outer - np.pad(small, self.reach - len(small) // 2)
        terms = []
        for n, axis in enumerate(self.axes):
            taps = {a: small if a in self.axes[:n] else outer for a in reversed(self.axes)}
            terms.append(self._of_slope(axis, {**taps, axis: difference}))
        return _sum(self.graph, terms)

    def passes(self, value: str, taps: Mapping[int, NDArray[np.float64]]) -> str:
        """Add one pass along each axis of `taps`, reflecting at the border without repeating the edge pixel."""
        for axis, kernel in taps.items():
            if len(kernel) > 1:
                value = self._conv(self._pad(value, axis, len(kernel) // 2), axis, kernel)
        return value

    def _smooth(self, value: str, taps: NDArray[np.float64]) -> str:
        """Add smoothing along all axes that leaves an even area exactly as it is.

        Each pass adds to a pixel what its neighbours differ from it. Integer images have even areas, and a forest has thresholds
        half-way between integers, so on other integers: there a value that is off by its last bit would fall on the other side.
        """
        if len(taps) == 1:
            return value
        for axis in reversed(self.axes):
            differences = self._conv(self._pad(value, axis, len(taps) // 2), axis, np.array([-1.0, 1.0]))
            value = self.graph.node("Add", value, self._conv(differences, axis, fk.smoothing_change(taps)))
        return value

    def _of_slope(self, axis: int, taps: Mapping[int, NDArray[np.float64]]) -> str:
        """Add the passes of a derivative that begins along `axis`."""
        result = self._conv(self.slope(axis), axis, fk.difference_kernel(taps[axis], self.reach))
        return self.passes(result, {a: kernel for a, kernel in taps.items() if a != axis})

    def _pad(self, value: str, axis: int, width: int) -> str:
        pads = np.zeros((2, RANK), np.int64)  # begin and end of each axis
        pads[:, axis] = width
        return self._once(
            ("Pad", value, pads.tobytes()), lambda: self._node("Pad", value, pads.ravel(), mode="reflect")
        )

    def _conv(self, value: str, axis: int, taps: NDArray[np.float64]) -> str:
        """Add a correlation along one axis, without the border."""
        kernel = taps.astype(np.float32).reshape([len(taps) if a == axis else 1 for a in range(RANK)])
        key = ("Conv", value, kernel.tobytes() + bytes(kernel.shape))
        return self._once(key, lambda: self._node("Conv", value, kernel))

    def _node(self, operator: str, value: str, constant: NDArray, **attributes: str) -> str:
        return self.graph.node(operator, value, self.graph.constant(constant), **attributes)

    def _once(self, key: tuple[str, str, bytes], add: Callable[[], str]) -> str:
        if key not in self.done:
            self.done[key] = add()
        return self.done[key]


def _pairs(axes: tuple[int, ...]) -> list[tuple[int, int]]:
    """Return the elements of a symmetric matrix over the axes."""
    return [(a, b) for a in axes for b in axes if a <= b]


def _sum(graph: GraphBuilder, values: Sequence[str]) -> str:
    result = values[0]
    for value in values[1:]:
        result = graph.node("Add", result, value)
    return result


def _eigenvalues(graph: GraphBuilder, matrix: Mapping[tuple[int, int], str], axes: tuple[int, ...]) -> list[str]:
    if len(axes) == 2:
        y, x = axes
        return _eigenvalues_2d(_Arithmetic(graph, np.float32), matrix[y, y], matrix[x, x], matrix[y, x])
    z, y, x = axes
    elements = (matrix[z, z], matrix[y, y], matrix[x, x], matrix[z, y], matrix[z, x], matrix[y, x])
    double = [graph.node("Cast", element, to=DOUBLE) for element in elements]
    return [graph.node("Cast", e, to=1) for e in _eigenvalues_3d(_Arithmetic(graph, np.float64), *double)]


class _Arithmetic:
    """Arithmetic of one dtype on named values and numbers, so that formulas stay readable."""

    def __init__(self, graph: GraphBuilder, dtype: type[np.floating]) -> None:
        self.graph = graph
        self.dtype = dtype

    def _name(self, value: str | float) -> str:
        return value if isinstance(value, str) else self.graph.constant(np.asarray(value, self.dtype))

    def apply(self, operator: str, *values: str | float) -> str:
        """Add a node with one output."""
        return self.graph.node(operator, *(self._name(v) for v in values))

    def add(self, *values: str | float) -> str:
        """Add the values from left to right."""
        return self._fold("Add", values)

    def mul(self, *values: str | float) -> str:
        """Multiply the values from left to right."""
        return self._fold("Mul", values)

    def sub(self, a: str | float, b: str | float) -> str:
        """Subtract b from a."""
        return self.apply("Sub", a, b)

    def div(self, a: str | float, b: str | float) -> str:
        """Divide a by b."""
        return self.apply("Div", a, b)

    def _fold(self, operator: str, values: Sequence[str | float]) -> str:
        result = self._name(values[0])
        for value in values[1:]:
            result = self.apply(operator, result, value)
        return result


def _eigenvalues_2d(m: _Arithmetic, yy: str, xx: str, xy: str) -> list[str]:
    """Add the operations of `forestbridge.encoders.eigenvalues.eigenvalues_2d`."""
    mean = m.mul(m.add(yy, xx), 0.5)
    half = m.mul(m.sub(yy, xx), 0.5)
    root = m.apply("Sqrt", m.add(m.mul(half, half), m.mul(xy, xy)))
    return [m.add(mean, root), m.sub(mean, root)]


def _eigenvalues_3d(m: _Arithmetic, zz: str, yy: str, xx: str, zy: str, zx: str, yx: str) -> list[str]:
    """Add the operations of `forestbridge.encoders.eigenvalues.eigenvalues_3d`, where the formula is explained; all float64."""
    q = m.div(m.add(zz, yy, xx), 3.0)
    a, b, c = m.sub(zz, q), m.sub(yy, q), m.sub(xx, q)
    zy2, zx2, yx2 = m.mul(zy, zy), m.mul(zx, zx), m.mul(yx, yx)
    squares = m.add(m.mul(a, a), m.mul(b, b), m.mul(c, c), m.mul(m.add(zy2, zx2, yx2), 2.0))
    p = m.apply("Sqrt", m.div(squares, 6.0))
    det = m.mul(a, m.sub(m.mul(b, c), yx2))
    det = m.sub(det, m.mul(zy, m.sub(m.mul(zy, c), m.mul(yx, zx))))
    det = m.add(det, m.mul(zx, m.sub(m.mul(zy, yx), m.mul(b, zx))))
    r = m.div(det, m.apply("Max", m.mul(p, p, p, 2.0), float(np.finfo(np.float64).tiny)))
    # The sign of r as ±1.0; Sign itself gives 0 for 0.
    positive = m.graph.node("Cast", m.graph.node("Not", m.apply("Less", r, 0.0)), to=DOUBLE)
    sign = m.sub(m.mul(positive, 2.0), 1.0)
    r = m.apply("Min", m.apply("Abs", r), 1.0)
    far = m.add(m.mul(r, 0.1339745962155614), 0.8660254037844386)
    for _ in range(fk.NEWTON_STEPS):
        square = m.mul(far, far)
        error = m.sub(m.mul(m.sub(m.mul(square, 4.0), 3.0), far), r)
        far = m.sub(far, m.div(error, m.sub(m.mul(square, 12.0), 3.0)))
    root = m.apply("Sqrt", m.apply("Max", m.mul(m.sub(1.0, m.mul(far, far)), 3.0), 0.0))
    signed = m.mul(sign, p)
    lone = m.add(q, m.mul(signed, far, 2.0))
    middle = m.add(q, m.mul(signed, m.sub(root, far)))
    other = m.sub(q, m.mul(signed, m.add(root, far)))
    return [m.apply("Max", lone, other), middle, m.apply("Min", lone, other)]
