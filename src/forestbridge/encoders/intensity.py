"""The intensities that deep encoders take for black and white: measured once over all images, then part of the spec.

No statistic of a single image or tile is part of a feature: the same pixels give the same features in every image. One rule is another,
FeatureForest's "plane", for forests that were trained there: each plane is stretched as a whole before it is cut into tiles.
"""

from collections.abc import Iterator, Sequence
from itertools import product
from threading import Lock
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError
from forestbridge.image import Image, as_image
from forestbridge.spec import EncoderSpec

PERCENTILES = (0.1, 99.9)
"""Of the pixels of a channel over all images: a thousandth is clipped at each end, so that hot pixels do not darken the rest."""

PIXELS = 2**20
"""Looked at per image and channel, spread over its planes."""

PLANES = 16
"""Planes looked at, evenly spaced."""

SQUARES = 4
"""Per axis, evenly spaced, that are read of a plane which is too large."""

BLOCK = 2**24
"""Pixels of a plane that are read at a time for its minimum and maximum."""

_known: WeakKeyDictionary[Image, dict[tuple[int, int], tuple[np.float32, np.float32]]] = WeakKeyDictionary()
_lock = Lock()


class Intensity(NamedTuple):
    """What `open_encoder` of a deep encoder takes.

    Attributes
    ----------
    channels
        Number of channels.
    low, high
        Raw intensities that become 0 and 1, one per channel.
    """

    channels: int
    low: list[float]
    high: list[float]


def measure_intensity(images: Sequence[Image | NDArray] | Image | NDArray) -> Intensity:
    """Return the intensity constants for images that are treated alike.

    Colour images, three channels of uint8, keep 0 and 255. Otherwise `PERCENTILES` of each channel are taken over all images.

    Parameters
    ----------
    images
        One or several, as `forestbridge.features` takes them, with equally many channels.

    Raises
    ------
    ImageError
        If there is none, or they have different numbers of channels.
    """
    opened = images_of_one_kind(images)
    if opened[0].n_channels == 3 and all(image.dtype == np.uint8 for image in opened):
        return Intensity(3, [0.0] * 3, [255.0] * 3)
    low, high = np.percentile(sample_pixels(opened), PERCENTILES, axis=1).astype(np.float32).tolist()
    return Intensity(opened[0].n_channels, low, [b if b > a else a + 1 for a, b in zip(low, high, strict=True)])


def images_of_one_kind(images: Sequence[Image | NDArray] | Image | NDArray) -> list[Image]:
    """Return one or several images as a list.

    Raises
    ------
    ImageError
        If there is none, or they have different numbers of channels.
    """
    opened = [as_image(i) for i in (images if isinstance(images, Sequence) else [images])]
    if not opened:
        raise ImageError("expected at least one image to measure the intensities of, found none")
    first = opened[0]
    for image in opened[1:]:
        if image.n_channels != first.n_channels:
            raise ImageError(
                f"{image.source}: expected {first.n_channels} channel(s) as in {first.source}, found {image.n_channels}; "
                "choose them with --channels (read_image(..., channels=[...]))"
            )
    return opened


def sample_pixels(images: Sequence[Image]) -> NDArray[np.float32]:
    """Return (C, N) float32 pixels that are spread over images of equally many channels."""
    return np.concatenate([s for image in images for s in _samples(image)], axis=1)


def _samples(image: Image) -> Iterator[NDArray[np.float32]]:
    """Yield (C, n) pixels of squares that are spread over an image."""
    planes = list(image.planes())
    chosen = [planes[i] for i in np.unique(np.linspace(0, len(planes) - 1, PLANES).round().astype(int))]
    size = (image.sizes["Y"], image.sizes["X"])
    budget = PIXELS // len(chosen)
    if size[0] * size[1] <= budget:
        squares = [(slice(0, size[0]), slice(0, size[1]))]
    else:
        side = int(budget**0.5) // SQUARES
        starts = [np.linspace(0, max(n - side, 0), SQUARES).astype(int).tolist() for n in size]
        squares = [tuple(slice(s, min(s + side, n)) for s, n in zip(at, size, strict=True)) for at in product(*starts)]
    for t, z in chosen:
        for square in squares:
            yield image.region(square, t=t, z=z).reshape(image.n_channels, -1)


def read_pixels(
    image: Image, spec: EncoderSpec, region: Sequence[slice], *, t: int, z: int | None
) -> NDArray[np.float32]:
    """Return a region as an encoder takes it: (C, ...) float32 raw intensities; for the rule "plane" stretched to 0…1.

    Raises
    ------
    ImageError
        As `Image.region`; or a plane to be stretched has no contrast.
    """
    pixels = image.region(region, t=t, z=z)
    if spec.intensity["rule"] != "plane":
        return pixels
    low, high = _plane_limits(image, t, z or 0)
    return (pixels - low) / (high - low)


def _plane_limits(image: Image, t: int, z: int) -> tuple[np.float32, np.float32]:
    """Return the least and the largest intensity of a plane, over all channels as FeatureForest takes them; read once per image."""
    with _lock:
        known = _known.setdefault(image, {})
        if (t, z) not in known:
            height, width = image.sizes["Y"], image.sizes["X"]
            rows = max(1, BLOCK // (width * image.n_channels))
            found = []
            for y in range(0, height, rows):
                block = image.region((slice(y, min(y + rows, height)), slice(0, width)), t=t, z=z)
                found.append((block.min(), block.max()))
            known[t, z] = min(low for low, _ in found), max(high for _, high in found)
        low, high = known[t, z]
    if not low < high:
        raise ImageError(
            f"{image.source}: expected planes with contrast, found that all pixels of t={t} z={z} are {low:g}: stretching them as "
            "FeatureForest does gives NaN; leave this plane out"
        )
    return low, high
