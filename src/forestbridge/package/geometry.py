"""Sizes that every consumer accepts: even halo, power-of-two minimum, and the crop that travels as test tensor."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.fixed_tiles import package_halo, package_sides
from forestbridge.image import Image
from forestbridge.spec import EncoderSpec

STEP = 16
"""A tile may be ``minimum + n·STEP`` pixels long; with a power-of-two minimum, ilastik's 512 and QuPath's multiples are among them."""

SMALLEST = {"z": 16, "y": 64, "x": 64}

TEST_SIZE = {"z": 16, "y": 160, "x": 160}
"""Wanted size of the test tensors, unless minimum and halo ask for more."""


class SpatialAxis(NamedTuple):
    """One spatial axis of a package, in pixels; a step of 0 fixes it to `minimum`."""

    id: str
    minimum: int
    step: int
    halo: int


def spatial_axes(spec: EncoderSpec) -> tuple[SpatialAxis, ...]:
    """Return the axes of a package made from an encoder.

    The halo is rounded up to an even number (odd ones are invalid up to bioimageio.spec 0.5.6), and the minimum is the smallest
    power of two above twice the halo, so that something is left of the smallest tile. Encoders of a fixed tile fix the size.
    """
    if spec.tile is not None:
        sides, halos = package_sides(spec), package_halo(spec)
        return tuple(SpatialAxis(axis, side, 0, halo) for axis, side, halo in zip(spec.axes, sides, halos, strict=True))
    axes = []
    for axis, halo in zip(spec.axes, package_halo(spec), strict=True):
        axes.append(SpatialAxis(axis, max(SMALLEST[axis], 1 << (2 * halo).bit_length()), STEP, halo))
    return tuple(axes)


def test_length(size: int, axis: SpatialAxis) -> int:
    """Return the length of the test tensor along an axis of an image of `size`: a ``minimum + n·step``.

    At least ``minimum + 2·halo`` where the image has as much, so that consumers can run a tile and its halo inside.
    """
    if not axis.step:
        return axis.minimum
    wanted = max(TEST_SIZE[axis.id], axis.minimum + 2 * axis.halo + axis.step - 1)
    return axis.minimum + max(0, (min(size, wanted) - axis.minimum) // axis.step) * axis.step


def crop_center(image: Image, spec: EncoderSpec) -> NDArray[np.float32]:
    """Return the middle of an image as test tensor.

    Parameters
    ----------
    image
        The first frame is used, for 2D encoders its middle plane. An image smaller than the minimum is grown by reflection.

    Returns
    -------
    crop
        (1, C, y, x) or (1, C, z, y, x) float32.
    """
    axes = spatial_axes(spec)
    sizes = [image.sizes[a.id.upper()] for a in axes]
    wanted = [test_length(n, a) for n, a in zip(sizes, axes, strict=True)]
    slices = tuple(
        slice(max(0, (n - w) // 2), max(0, (n - w) // 2) + min(n, w)) for n, w in zip(sizes, wanted, strict=True)
    )
    crop = image.region(slices, t=0, z=image.sizes["Z"] // 2 if len(axes) == 2 else None)
    missing = [(0, 0)] + [(0, w - n) for w, n in zip(wanted, crop.shape[1:], strict=True)]
    return np.ascontiguousarray(np.pad(crop, missing, mode="reflect")[None])
