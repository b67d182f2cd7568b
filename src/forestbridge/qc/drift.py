"""Drift: what the training images were like, from a sample of their pixels; and how another image differs, in words.

A forest knows the grey values it was trained on. Of an image with another bit depth, exposure, order of channels or pixel size it
makes a result all the same, and nothing in that result says that it means little.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.image import AXES, Image, ImageShape
from forestbridge.qc.measure import depth_of
from forestbridge.qc.verdict import number

PLANES = 3
"""Planes of an image that are sampled: the first, the middle and the last."""

BLOCKS, SIDE = 4, 128
"""Sampled are so many blocks along y and x, evenly spread, of so many pixels each way; smaller planes are taken whole."""

CONTRAST = 2.0
"""By what factor the contrast (99 % - 1 %) may be larger or smaller than that of any training image."""

PIXEL_SIZE = 0.1
"""By what share a pixel may be larger or smaller than those of the training images."""

PERCENTILES = (1, 50, 99)

KEYS: tuple[str, ...] = ("min", "max", "p1", "p50", "p99")

Statistics = Mapping[str, Any]
"""JSON values: `images` (number of them), `dtypes`, `bits`, `pixel_sizes` (of each kind that occurs), `channels`: of each `name`, and
`min`, `max`, `p1`, `p50`, `p99` as [smallest, largest] of all images; None where they are not known. `docs/formats.md` has them, too."""


def image_statistics(image: Image) -> Statistics:
    """Return what an image is like; at most `PLANES` × (`BLOCKS` × `SIDE`)² pixels of a channel are read.

    Raises
    ------
    ImageError
        If it cannot be read.
    """
    pixels = _sample(image)  # (C, n)
    channels = []
    for values in pixels:
        finite = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        if not finite.size:
            channels.append(dict.fromkeys(KEYS))
            continue
        found = np.percentile(finite, [0, 100, *PERCENTILES], method="inverted_cdf").tolist()
        channels.append({n: [float(v)] * 2 for n, v in zip(KEYS, found, strict=True)})
    known = [c for c in channels if c["min"]]
    bits = None
    if known:
        depth = depth_of(image.dtype, min(c["min"][0] for c in known), max(c["max"][1] for c in known))
        bits = depth.bits if depth else None
    return _document(image, image.dtype.name, image.channel_names, channels, bits)


def facts_statistics(image: ImageShape, dtype: str, channel_names: Sequence[str]) -> Statistics:
    """Return the same of an image of which no pixel is at hand, such as that of a feature store."""
    empty: list[dict[str, Any]] = [dict.fromkeys(KEYS) for _ in range(image.sizes["C"])]
    return _document(image, dtype, channel_names, empty, None)


def _document(
    image: ImageShape, dtype: str, names: Sequence[str], channels: Sequence[dict[str, Any]], bits: int | None
) -> Statistics:
    names = list(names) or [""] * len(channels)
    size = {axis: float(image.pixel_size[axis]) for axis in "zyx" if axis in image.pixel_size}
    return {
        "images": 1,
        "dtypes": [dtype],
        "bits": [] if bits is None else [bits],
        "pixel_sizes": [size] if size else [],
        "channels": [{"name": name, **c} for name, c in zip(names, channels, strict=True)],
    }


def merged_statistics(found: Sequence[Statistics]) -> Statistics:
    """Return the statistics of all images together; they have the same number of channels."""
    channels = []
    for same in zip(*(s["channels"] for s in found), strict=True):
        names = {c["name"] for c in same}
        channel: dict[str, Any] = {"name": names.pop() if len(names) == 1 else ""}
        for key in KEYS:
            ranges = [c[key] for c in same if c[key] is not None]
            channel[key] = [min(r[0] for r in ranges), max(r[1] for r in ranges)] if ranges else None
        channels.append(channel)
    sizes: list[dict[str, float]] = []
    for s in found:
        sizes += [size for size in s["pixel_sizes"] if size not in sizes]
    return {
        "images": sum(s["images"] for s in found),
        "dtypes": sorted({d for s in found for d in s["dtypes"]}),
        "bits": sorted({b for s in found for b in s["bits"]}),
        "pixel_sizes": sizes,
        "channels": channels,
    }


def drift(training: Statistics, image: Statistics) -> list[str]:
    """Return one sentence for each way in which an image differs from those a forest was trained on.

    Parameters
    ----------
    training
        Of the training images.
    image
        Of one image.
    """
    return [
        *_dtype_drift(training, image),
        *_channel_drift(training, image),
        *_range_drift(training, image),
        *_size_drift(training, image),
    ]


def _dtype_drift(training: Statistics, image: Statistics) -> list[str]:
    [dtype] = image["dtypes"]
    if dtype in training["dtypes"]:
        return []
    return [
        f"bit depth: expected {' or '.join(training['dtypes'])} as in training, found {dtype}; take the file as the microscope "
        "wrote it, not one that was converted"
    ]


def _channel_drift(training: Statistics, image: Statistics) -> list[str]:
    wanted, found = ([c["name"] for c in s["channels"]] for s in (training, image))
    if len(wanted) != len(found):
        return [f"channels: expected {len(wanted)} as in training, found {len(found)}; choose them with --channels"]
    if wanted == found or not all(wanted) or not all(found):
        return []
    texts = f"expected {', '.join(wanted)} as in training, found {', '.join(found)}"
    if sorted(wanted) == sorted(found) and len(set(found)) == len(found):
        order = " ".join(str(found.index(name)) for name in wanted)
        return [f"order of channels: {texts}; --channels {order} brings them into order"]
    return [f"channels: {texts}; check that it is the same stain, or choose with --channels"]


def _range_drift(training: Statistics, image: Statistics) -> list[str]:
    if len(training["channels"]) != len(image["channels"]):
        return []
    notes = []
    for n, (trained, found) in enumerate(zip(training["channels"], image["channels"], strict=True)):
        if trained["p1"] is None or found["p1"] is None:
            continue
        low, high, middle = found["p1"][0], found["p99"][0], found["p50"][0]
        lowest, highest = trained["p1"][0], trained["p99"][1]
        # of several training images the contrast of each is not known, but it is between these
        least = max(trained["p99"][0] - trained["p1"][1], 0.0)
        most = highest - lowest
        contrast = high - low
        if least / CONTRAST <= contrast <= most * CONTRAST and lowest <= middle <= highest:
            continue
        name = f"channel {n}" + (f" ({found['name']})" if found["name"] else "")
        notes.append(
            f"grey values: expected 98 % of {name} within {number(lowest)} to {number(highest)} as in training, found "
            f"{number(low)} to {number(high)}; check exposure, gain and whether it was rescaled, or train on such images, too"
        )
    return notes


def _size_drift(training: Statistics, image: Statistics) -> list[str]:
    for size in image["pixel_sizes"]:
        known = [t for t in training["pixel_sizes"] if t.keys() & size.keys()]
        if known and not any(_alike(size, other) for other in known):
            texts = [" × ".join(f"{a}={s[a]:g}" for a in s) for s in (known[0], size)]
            return [
                f"pixel size: expected {texts[0]} µm as in training, found {texts[1]} µm; rescale the image, or train on such images, too"
            ]
    return []


def _alike(a: Mapping[str, float], b: Mapping[str, float]) -> bool:
    return all(abs(a[axis] / b[axis] - 1) <= PIXEL_SIZE for axis in a.keys() & b.keys())


def _sample(image: Image) -> NDArray:
    """Return (C, n) pixels, evenly spread over an image."""
    sizes = image.sizes
    positions = list(image.planes())
    chosen = sorted({positions[round(k * (len(positions) - 1) / (PLANES - 1))] for k in range(PLANES)})
    parts = []
    for t, z in chosen:
        for y in _blocks(sizes["Y"]):
            for x in _blocks(sizes["X"]):
                key = {"T": slice(t, t + 1), "C": slice(None), "Z": slice(z, z + 1), "Y": y, "X": x}
                block = np.asarray(image.data[tuple(key[a] for a in AXES if a in image.axes)])
                at = image.axes.index("C") if "C" in image.axes else None
                block = block[None] if at is None else np.moveaxis(block, at, 0)
                parts.append(block.reshape(sizes["C"], -1))  # (C, ...) -> (C, n)
    return np.concatenate(parts, axis=1)


def _blocks(length: int) -> list[slice]:
    """Return evenly spread pieces of an axis; the whole of a short one."""
    if length <= BLOCKS * SIDE:
        return [slice(0, length)]
    starts = [round(k * (length - SIDE) / (BLOCKS - 1)) for k in range(BLOCKS)]
    return [slice(start, start + SIDE) for start in starts]
