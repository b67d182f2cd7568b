"""The quality of an image: read plane by plane, measured, judged; one report out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from numpy.typing import NDArray

from forestbridge.image import Image, as_image
from forestbridge.qc.measure import (
    ChannelQuality,
    Depth,
    Histogram,
    PlaneQuality,
    depth_of,
    measure,
    merged,
    pixel_hash,
    pooled,
    possible,
    with_depth,
)
from forestbridge.qc.verdict import Verdict, channel_findings, depth_hints, duplicate_findings

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class QualityReport:
    """What is known of an image's quality.

    Attributes
    ----------
    source, dtype
        Of the image.
    possible
        Lowest and highest value of the dtype; None for floats.
    bits
        Bits of the detector, as far as the values tell; None for floats.
    channels
        One entry for each channel.
    verdict
        "unusable" if every channel is (constant, no finite pixel, or more than half of it at the highest possible value); "look" if
        there are reasons.
    reasons, hints
        Sentences: what led to the verdict, and what did not but should be known.
    """

    source: str
    dtype: str
    possible: tuple[int, int] | None
    bits: int | None
    channels: tuple[ChannelQuality, ...]
    verdict: Verdict
    reasons: tuple[str, ...]
    hints: tuple[str, ...]


def quality(
    image: Image | NDArray, *, channels: Sequence[int] | None = None, progress: Progress | None = None
) -> QualityReport:
    """Measure an image and judge it, with one plane in memory at a time.

    Parameters
    ----------
    image
        An image, or an array as `as_image` takes it.
    channels
        Channels to use, counted from 0; the report keeps these numbers.
    progress
        Called with the number of planes done, and of all.

    Raises
    ------
    ImageError
        If the image cannot be read, or a channel does not exist.
    """
    image = as_image(image)
    numbers = list(range(image.n_channels)) if channels is None else list(channels)
    image = image.select_channels(numbers)
    measured, depth = _channels(image, numbers, progress)
    by_channel = [list(channel_findings(channel, image.dtype, depth)) for channel in measured]
    findings = [finding for found in by_channel for finding in found] + list(duplicate_findings(measured))
    unusable = all(any(verdict == "unusable" for verdict, _ in found) for found in by_channel)
    return QualityReport(
        source=image.source,
        dtype=image.dtype.name,
        possible=possible(image.dtype),
        bits=depth.bits if depth else None,
        channels=measured,
        verdict="unusable" if unusable else "look" if findings else "ok",
        reasons=tuple(text for _, text in findings),
        hints=tuple(depth_hints(measured, image.dtype, depth)),
    )


def _channels(
    image: Image, numbers: Sequence[int], progress: Progress | None
) -> tuple[tuple[ChannelQuality, ...], Depth | None]:
    """Measure every plane, then tell from all values together how many bits the detector had."""
    planes, histograms = _planes(image, numbers, progress)
    known = [plane.statistics for plane in planes]
    depth = depth_of(image.dtype, min(s.min for s in known), max(s.max for s in known))
    planes = [replace(p, statistics=with_depth(p.statistics, image.dtype, depth)) for p in planes]
    result = []
    for k, c in enumerate(numbers):
        own = tuple(plane for plane in planes if plane.channel == c)
        name = image.channel_names[k] if image.channel_names else ""
        statistics = with_depth(pooled([p.statistics for p in own]), image.dtype, depth)
        result.append(ChannelQuality(c, name, statistics, histograms[c], own))
    return tuple(result), depth


def _planes(
    image: Image, numbers: Sequence[int], progress: Progress | None
) -> tuple[list[PlaneQuality], dict[int, Histogram | None]]:
    """Read and measure the planes one by one; each is compared with all before it through its hash."""
    planes: list[PlaneQuality] = []
    histograms: dict[int, Histogram | None] = dict.fromkeys(numbers)
    first: dict[bytes, tuple[int, int, int]] = {}
    positions = list(image.planes())
    for done, (t, z) in enumerate(positions, 1):
        for c, pixels in zip(numbers, image.plane(t, z), strict=True):  # (Y, X)
            statistics, histogram = measure(pixels)
            histograms[c] = merged(histograms[c], histogram)
            plane = PlaneQuality(t, z, c, None, statistics)
            if histogram is not None and not plane.constant:
                earlier = first.setdefault(pixel_hash(pixels), (t, z, c))
                plane = replace(plane, same_as=None if earlier == (t, z, c) else earlier)
            planes.append(plane)
        if progress:
            progress(done, len(positions))
    return planes, histograms
