"""From numbers to words: the channels of an image in; what a biologist should know of them out, and how bad it is."""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from forestbridge.qc.measure import ChannelQuality, Depth, PlaneQuality, possible

CLIPPED_HIGH = 0.1
"""Percent of a channel's pixels at the highest possible value from which to look: a few hot pixels are fewer."""

CLIPPED_LOW = 1.0
"""Percent at the lowest possible value from which to look: black holds less of what matters, so more is let pass."""

CLIPPED_UNUSABLE = 50.0
"""Percent at the highest possible value above which a channel is unusable: most of what it could tell is lost. Black is no such loss:
half of a fluorescence image may well be background that was subtracted."""

LOW_RANGE = 5.0
"""Percent of the grey levels of the detector below which a channel is under-exposed or without contrast."""

LOW_SNR = 6.0
"""Signal to noise below which to look: the 1st and 99th percentile of nothing but Gaussian noise lie 4.7 sigma apart."""

STANDS_OUT = 10.0
"""Times the noise by which an extreme differs from the median where something is to be seen that no percentile shows."""

LISTED = 5
"""Planes that a reason names one by one; it counts the others."""

Verdict = Literal["ok", "look", "unusable"]
Finding = tuple[Verdict, str]


def channel_findings(channel: ChannelQuality, dtype: np.dtype, depth: Depth | None) -> Iterator[Finding]:
    """Yield what is wrong with a channel; nothing more of one that says nothing at all."""
    s, name = channel.statistics, _name(channel)
    if channel.histogram is None:
        yield "unusable", f"all pixels of {name} are NaN or infinite: nothing is in it; check how the file was written"
    elif s.min == s.max:
        light = "check shutter, light source and filter, or choose other --channels"
        yield "unusable", f"{name} has the value {number(s.min)} everywhere: nothing is in it; {light}"
    else:
        if s.not_finite_percent:
            share, remedy = percent(s.not_finite_percent), "replace them with --nan VALUE when features are extracted"
            yield "look", f"{share} of the pixels of {name} are NaN or infinite: features need numbers; {remedy}"
        yield from _clipping(channel, dtype, depth)
        yield from _exposure(channel, depth)
        yield from _empty_planes(channel)


def _empty_planes(channel: ChannelQuality) -> Iterator[Finding]:
    """Yield which planes hold nothing, where others do."""
    if empty := [p for p in channel.planes if p.constant or np.isnan(p.statistics.min)]:
        share = f"{len(empty)} of {len(channel.planes)} planes of {_name(channel)}"
        yield "look", f"{share} hold nothing, one value or NaN everywhere: {_listed(empty, channel)}; leave them out"


def _clipping(channel: ChannelQuality, dtype: np.dtype, depth: Depth | None) -> Iterator[Finding]:
    """Yield what was brighter or darker than the detector, or whoever wrote the file, could say."""
    s = channel.statistics
    low, high = s.clipped_low_percent, s.clipped_high_percent
    lost: Verdict = "unusable" if high > CLIPPED_UNUSABLE else "look"
    subject = f"of the pixels of {_name(channel)} are at the"
    if depth is None:  # floats
        piled, back = "many more than beside it", "go back to the data before it was cut off"
        top = f"highest value {number(s.max)}, {piled}: what was brighter is lost; {back}"
        bottom = f"lowest value {number(s.min)}, {piled}: what was darker is lost; {back}"
    else:
        bits = f" of {depth.bits} bits" if has_spare_bits(dtype, depth) else ""
        top = f"highest possible value {depth.high}{bits}: what was brighter is lost; lower exposure or gain"
        bottom = f"lowest possible value {depth.low}: what was darker is lost; raise the detector's offset"
    if high >= CLIPPED_HIGH:
        yield lost, f"{percent(high)} {subject} {top}"
    if low >= CLIPPED_LOW:
        yield "look", f"{percent(low)} {subject} {bottom}"


def _exposure(channel: ChannelQuality, depth: Depth | None) -> Iterator[Finding]:
    """Yield whether too little light came in: few grey levels, or nothing that rises above the noise."""
    s, name = channel.statistics, _name(channel)
    if depth and 8 <= depth.bits <= 16:
        used = 100 * (s.max - s.min) / (depth.high - depth.low)
        if used < LOW_RANGE:
            yield (
                "look",
                f"{name} uses {percent(used)} of the {depth.high - depth.low + 1} grey values, {number(s.min)} to "
                f"{number(s.max)}: it is under-exposed or has little contrast; raise exposure or gain",
            )
    known = [plane for plane in channel.planes if not np.isnan(plane.statistics.snr)]
    if known and all(_only_noise(plane) for plane in known):
        yield (
            "look",
            f"the values of {name} spread over {s.snr:.1f} times their noise, which is what noise alone does: hardly "
            "anything is to be seen; expose longer or average several images",
        )


def _only_noise(plane: PlaneQuality) -> bool:
    s = plane.statistics
    return s.snr < LOW_SNR and max(s.max - s.p50, s.p50 - s.min) < STANDS_OUT * s.noise


def duplicate_findings(channels: Sequence[ChannelQuality]) -> Iterator[Finding]:
    """Yield which channels are copies of others, and which planes repeat an earlier one of their channel."""
    copies: dict[int, list[int]] = {}
    for channel in channels:
        if (original := _original(channel)) is not None:
            copies.setdefault(original, []).append(channel.channel)
            continue
        if repeated := [p for p in channel.planes if p.same_as and p.same_as[2] == p.channel]:
            yield (
                "look",
                f"{len(repeated)} of {len(channel.planes)} planes of {_name(channel)} repeat an earlier one, pixel by pixel: "
                f"{_listed(repeated, channel)}; check stage and export, or leave them out",
            )
    for original, others in copies.items():
        text = " and ".join(map(str, others))
        are = "channel {} is" if len(others) == 1 else "channels {} are"
        yield (
            "look",
            f"{are.format(text)} the same as channel {original}, pixel by pixel: grey saved as colour? Use --channels without "
            f"{text}",
        )


def _original(channel: ChannelQuality) -> int | None:
    """Return the channel whose planes are all the same as those of this one, if there is one; empty planes tell nothing."""
    planes = [p for p in channel.planes if not p.constant]
    found = {p.same_as[2] if p.same_as and p.same_as[:2] == (p.t, p.z) else None for p in planes}
    return found.pop() if len(found) == 1 and found != {channel.channel} else None


def depth_hints(channels: Sequence[ChannelQuality], dtype: np.dtype, depth: Depth | None) -> Iterator[str]:
    """Yield what bits that no value uses may mean: a detector with fewer bits, or too little light."""
    limits = possible(dtype)
    if depth and limits and has_spare_bits(dtype, depth) and depth.low == 0:
        highest = max(c.statistics.max for c in channels)
        yield (
            f"no value is above {number(highest)}, as a detector of {depth.bits} bits writes into {dtype.name}: {depth.high} "
            f"is taken for the highest possible value. If yours has more bits, the image is under-exposed: it uses "
            f"{percent(100 * highest / limits[1])} of {dtype.name}"
        )


def has_spare_bits(dtype: np.dtype, depth: Depth) -> bool:
    """Whether the dtype could hold more than the detector says."""
    limits = possible(dtype)
    return limits is not None and depth.high < limits[1]


def _listed(planes: Sequence[PlaneQuality], channel: ChannelQuality) -> str:
    """Return the places of planes, with those that they repeat."""
    texts = [
        _place((p.t, p.z), channel) + (f" as {_place(p.same_as[:2], channel)}" if p.same_as else "")
        for p in planes[:LISTED]
    ]
    return ", ".join(texts) + (f" and {len(planes) - LISTED} more" if len(planes) > LISTED else "")


def _place(at: Sequence[int], channel: ChannelQuality) -> str:
    """Return where a plane lies, by the axes along which there are several."""
    last = channel.planes[-1]
    named = [f"{axis}={n}" for axis, n, end in zip("tz", at, (last.t, last.z)) if end]
    return " ".join(named) or "the only plane"


def _name(channel: ChannelQuality) -> str:
    return f"channel {channel.channel}" + (f" ({channel.name})" if channel.name else "")


def percent(value: float) -> str:
    """Return a percentage as a text of two or three digits."""
    return f"{value:.1f} %" if value >= 1 else f"{value:.2g} %"


def number(value: float) -> str:
    """Return a grey value as a text: integers in full, others with four digits."""
    return f"{value:.0f}" if value.is_integer() and abs(value) < 2**53 else f"{value:.4g}"
