"""Numbers of single planes: pixels of one channel in; statistics, histogram and a hash out, which know of no threshold."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

PILE_UP = 10
"""Floats have no lowest and highest value; their extremes are clipped if they occur this many times as often as the next value."""

DEPTHS = (8, 10, 12, 14, 16)
"""Bits of detectors: the smallest that holds all values of an integer image is taken for that of its detector."""

BINS = 256
"""Bins of a histogram, at most."""

ROWS = 512
"""Rows that are filtered at a time: filters work in float64, whatever the size of a plane."""

NAN = float("nan")


@dataclass(frozen=True)
class Statistics:
    """Numbers of a plane or channel, in its own grey values; NaN is what cannot be said.

    Attributes
    ----------
    not_finite_percent, clipped_low_percent, clipped_high_percent
        Share of all pixels that are NaN, infinite or beyond float32; and at the lowest and highest possible value.
    min, max, mean, std, p1, p50, p99
        Of the finite pixels; percentiles are values that occur.
    range_used_percent
        max - min, as a share of the range of the dtype; NaN for floats.
    noise
        Standard deviation of the noise.
    snr
        (p99 - p1) / noise.
    focus
        Variance of the length of the Sobel gradient (grey values per pixel), to compare planes of one stack.
    """

    not_finite_percent: float = 100.0
    min: float = NAN
    max: float = NAN
    mean: float = NAN
    std: float = NAN
    p1: float = NAN
    p50: float = NAN
    p99: float = NAN
    clipped_low_percent: float = 0.0
    clipped_high_percent: float = 0.0
    range_used_percent: float = NAN
    noise: float = NAN
    snr: float = NAN
    focus: float = NAN


@dataclass(frozen=True)
class PlaneQuality:
    """One channel of one plane; `same_as` is (t, z, channel) of the first plane with the same pixels, if another is."""

    t: int
    z: int
    channel: int
    same_as: tuple[int, int, int] | None
    statistics: Statistics

    @property
    def constant(self) -> bool:
        """Whether all finite pixels have one value, and there is one."""
        return self.statistics.min == self.statistics.max


class Histogram(NamedTuple):
    """Numbers of pixels in bins of equal width from `low` to `high`."""

    low: float
    high: float
    counts: tuple[float, ...]

    def edges(self) -> NDArray[np.float64]:
        """Return the edges of the bins, one more than there are bins."""
        return np.linspace(self.low, self.high, len(self.counts) + 1)


@dataclass(frozen=True)
class ChannelQuality:
    """One channel: statistics as `pooled`, the histogram of all planes (None if no pixel is finite), and the planes."""

    channel: int
    name: str
    statistics: Statistics
    histogram: Histogram | None
    planes: tuple[PlaneQuality, ...]


class Depth(NamedTuple):
    """Bits of the detector, and the lowest and highest value that they can say."""

    bits: int
    low: int
    high: int


def measure(pixels: NDArray) -> tuple[Statistics, Histogram | None]:
    """Measure one channel of one plane.

    Parameters
    ----------
    pixels
        (Y, X) of any dtype that an `Image` may have.

    Returns
    -------
    statistics
        What is called clipped are the pixels at the extremes that occur; `with_depth` keeps those that are the last possible.
    histogram
        None if no pixel is finite.
    """
    integer = pixels.dtype.kind != "f"
    pixels = _as_the_encoder_sees(pixels)
    levels, counts = _levels(pixels)
    if not levels.size:
        return Statistics(), None
    n = int(counts.sum())
    upto = np.cumsum(counts)
    p1, p50, p99 = (float(levels[np.searchsorted(upto * 100, p * n)]) for p in (1, 50, 99))
    mean = float(levels @ counts) / n
    noise, focus = _noise_and_focus(pixels)
    low, high = (int(c) if integer or _piled_up(c, beside) else 0 for c, beside in _ends(counts))
    statistics = Statistics(
        not_finite_percent=100 * (1 - n / pixels.size),
        min=float(levels[0]),
        max=float(levels[-1]),
        mean=mean,
        std=float(np.sqrt((levels - mean) ** 2 @ counts / n)),
        p1=p1,
        p50=p50,
        p99=p99,
        clipped_low_percent=100 * low / pixels.size,
        clipped_high_percent=100 * high / pixels.size,
        noise=noise,
        snr=(p99 - p1) / noise if noise > 0 else NAN,
        focus=focus,
    )
    return statistics, _histogram(levels, counts, integer=integer)


def _as_the_encoder_sees(pixels: NDArray) -> NDArray:
    """Return floats as float32, where float64 beyond it becomes infinite, and bool as 0 and 1."""
    if pixels.dtype.kind == "f":
        with np.errstate(over="ignore"):
            return pixels.astype(np.float32)
    return pixels.astype(np.uint8) if pixels.dtype.kind == "b" else pixels


def _levels(pixels: NDArray) -> tuple[NDArray[np.float64], NDArray]:
    """Return the finite values that occur, in order, and how often; everything but noise and focus follows from them."""
    if pixels.dtype.kind == "u" and pixels.dtype.itemsize <= 2:  # counted in a tenth of the time of sorting
        n_values = 256**pixels.dtype.itemsize
        counts = np.zeros(n_values, np.int64)
        for top in range(0, pixels.shape[0], ROWS):
            counts += np.bincount(pixels[top : top + ROWS].ravel(), minlength=n_values)
        levels = np.flatnonzero(counts)
        return levels.astype(np.float64), counts[levels]
    finite = pixels if pixels.dtype.kind == "i" else pixels[np.isfinite(pixels)]
    levels, counts = np.unique(finite, return_counts=True)
    return levels.astype(np.float64), counts


def _ends(counts: NDArray) -> Iterator[tuple[int, int]]:
    """Yield how often the lowest value and the next one occur, then the highest and the next one; 0 where there is none."""
    for first, second in ((0, 1), (-1, -2)):
        yield int(counts[first]), int(counts[second]) if len(counts) > 1 else 0


def _piled_up(count: int, beside: int) -> bool:
    return count >= PILE_UP * beside > 0


def _noise_and_focus(pixels: NDArray) -> tuple[float, float]:
    """Return the sigma of the noise, and the variance of the length of the gradient; NaN without a pixel that has eight neighbours.

    Structure is removed with the difference of two Laplacians, and what is left is taken for noise. Too low where many
    pixels are clipped, or the noise of neighbours is alike; too high where fine structure fills the plane.

    References
    ----------
    Immerkaer 1996, doi:10.1006/cviu.1996.0060 (noise); Pech-Pacheco et al. 2000, doi:10.1109/ICPR.2000.903548 (focus).
    """
    laplacians = np.outer([1, -2, 1], [1, -2, 1]).astype(np.float64)
    sums = np.zeros(4)  # |response|, gradient, gradient², pixels
    for strip in _strips(pixels):
        response = np.abs(ndimage.correlate(strip, laplacians))[1:-1, 1:-1]
        gradient = np.hypot(ndimage.sobel(strip, 0), ndimage.sobel(strip, 1))[1:-1, 1:-1] / 8
        known = np.isfinite(response)
        sums += response[known].sum(), gradient[known].sum(), (gradient[known] ** 2).sum(), known.sum()
    if not sums[3]:
        return NAN, NAN
    response, gradient, squared = sums[:3] / sums[3]
    return float(np.sqrt(np.pi / 2) / 6 * response), float(max(squared - gradient**2, 0))


def _strips(pixels: NDArray) -> Iterator[NDArray[np.float64]]:
    """Yield (rows, X) float64 strips with NaN for what is not finite; neighbours share two rows, so that inner rows meet once."""
    if pixels.shape[1] < 3:
        return
    for top in range(0, pixels.shape[0] - 2, ROWS):
        strip = pixels[top : top + ROWS + 2].astype(np.float64)
        strip[~np.isfinite(strip)] = NAN
        yield strip


def _histogram(levels: NDArray[np.float64], counts: NDArray, *, integer: bool) -> Histogram:
    """Return the histogram between the extremes; bins of integers hold equally many grey values."""
    low, high, bins = levels[0], levels[-1], BINS
    if integer:
        width = max(1, -(-(high - low + 1) // BINS))  # grey values in a bin
        bins = int(-(-(high - low + 1) // width))
        low, high = low - 0.5, low - 0.5 + bins * width
    elif low == high:
        low, high, bins = low - 1e-6 * max(abs(low), 1), high + 1e-6 * max(abs(high), 1), 1
    found = np.histogram(levels, bins, (low, high), weights=counts)[0]
    return Histogram(float(low), float(high), tuple(found.tolist()))


def merged(a: Histogram | None, b: Histogram | None) -> Histogram | None:
    """Return the histogram of the pixels of both; those of a bin count as spread evenly over it."""
    if a is None or b is None:
        return a or b
    low, high = min(a.low, b.low), max(a.high, b.high)
    bins = len(a.counts) if (low, high) == (a.low, a.high) else BINS
    edges = np.linspace(low, high, bins + 1)
    upto = sum(np.interp(edges, h.edges(), np.cumsum([0, *h.counts])) for h in (a, b))
    return Histogram(low, high, tuple(np.diff(upto).tolist()))


def pooled(parts: Sequence[Statistics]) -> Statistics:
    """Return the statistics of a channel: min and max over its planes, means of percentages, medians of the rest."""
    table = {name: np.array([getattr(p, name) for p in parts]) for name in Statistics.__dataclass_fields__}
    known = {name: values[~np.isnan(values)] for name, values in table.items()}
    how = {"min": np.min, "max": np.max}
    how |= {name: np.mean for name in table if name.endswith("_percent")}
    return Statistics(**{n: float(how.get(n, np.median)(v)) if v.size else NAN for n, v in known.items()})


def depth_of(dtype: np.dtype, low: float, high: float) -> Depth | None:
    """Return the bits that a detector must have had for values from `low` to `high`; None for floats."""
    if dtype.kind == "f":
        return None
    if dtype.kind == "b":
        return Depth(1, 0, 1)
    limits = np.iinfo(dtype)
    if low < 0:
        return Depth(limits.bits, int(limits.min), int(limits.max))
    bits = min((b for b in DEPTHS if high < 2**b <= int(limits.max) + 1), default=limits.bits)
    return Depth(bits, 0, min(2**bits - 1, int(limits.max)))


def possible(dtype: np.dtype) -> tuple[int, int] | None:
    """Return the lowest and highest value of a dtype; None for floats."""
    if dtype.kind == "f":
        return None
    return (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))


def with_depth(statistics: Statistics, dtype: np.dtype, depth: Depth | None) -> Statistics:
    """Return what `measure` found in an integer plane, with what the bits of the detector say of it."""
    limits = possible(dtype)
    if depth is None or limits is None:
        return statistics
    return replace(
        statistics,
        clipped_low_percent=statistics.clipped_low_percent if statistics.min == depth.low else 0.0,
        clipped_high_percent=statistics.clipped_high_percent if statistics.max == depth.high else 0.0,
        range_used_percent=100 * (statistics.max - statistics.min) / (limits[1] - limits[0]),
    )


def pixel_hash(pixels: NDArray) -> bytes:
    """Return a hash of the values of a plane of a given dtype and shape."""
    return hashlib.blake2b(np.ascontiguousarray(pixels).data, digest_size=16).digest()
