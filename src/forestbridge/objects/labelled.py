"""Label images of objects: a file or an array in, planes of whole numbers out, one at a time; 0 is no object."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError
from forestbridge.image import Image, as_image, read_image
from forestbridge.image.source import shown
from forestbridge.labels.rasters import open_raster

Source = str | os.PathLike[str] | Image | NDArray
"""A file, an open image, or an array."""

MAX_ID = 2**32 - 1
"""Largest number of an object: label images have at most 32 bits."""

_AXES = {2: "YX", 3: "ZYX", 4: "TZYX"}


def open_labelled(source: Source, *, axes: str | None = None, scene: int | None = None) -> Image:
    """Open a label image; its pixels are read plane by plane.

    Parameters
    ----------
    source
        A file that `read_image` reads, or a PNG with a palette; or an array (Y, X), (Z, Y, X), (T, Z, Y, X), or with the axes named by
        `axes`.
    axes
        Letters of "TCZYX", where the file does not say.
    scene
        Which image of a file with several.

    Raises
    ------
    ImageError
        If it cannot be read, or has several channels: probabilities and colours are no labels.
    """
    if isinstance(source, str | os.PathLike):
        image = _open_file(Path(source), axes, scene)
    elif isinstance(source, Image):
        image = source
    else:
        array = np.asarray(source)
        image = as_image(array, axes=axes or _AXES.get(array.ndim))
    if image.n_channels > 1:
        raise ImageError(
            f"{image.source}: expected one number per pixel, found {image.n_channels} channels of {image.dtype}; give a label "
            "image, such as forestbridge instances writes"
        )
    return image


def _open_file(path: Path, axes: str | None, scene: int | None) -> Image:
    if path.suffix.lower() != ".png" or not path.is_file():
        return read_image(path, axes=axes, scene=scene)
    return Image(open_raster(path).data, "YX", {}, source=shown(path))  # of a palette the indices, not the colours


def read_plane(image: Image, t: int, z: int) -> NDArray[np.integer]:
    """Return one plane of a label image.

    Returns
    -------
    labels
        (Y, X), unsigned integers of the smallest dtype that the file allows; 0 is no object.

    Raises
    ------
    ImageError
        If a value is negative, has a fraction, or is above `MAX_ID`.
    """
    plane = image.plane(t, z)[0]  # (1, Y, X) -> (Y, X)
    if plane.dtype.kind == "b":
        return plane.astype(np.uint8)
    if plane.dtype.kind == "u" and plane.dtype.itemsize <= 4:
        return plane
    if plane.dtype.kind == "f":  # ImageJ has no integers of 32 bits
        with np.errstate(invalid="ignore"):
            whole = plane == np.rint(plane)
        if not whole.all():
            y, x = np.argwhere(~whole)[0]
            raise ImageError(
                f"{image.source}: expected whole numbers as labels, found {plane[y, x]} at t={t} z={z} y={y} x={x}; "
                "intensities and probabilities are no labels"
            )
    if plane.size and (plane.min() < 0 or plane.max() > MAX_ID):
        worst = plane.min() if plane.min() < 0 else plane.max()
        raise ImageError(
            f"{image.source}: expected labels from 0 to {MAX_ID}, found {worst} at t={t} z={z}; number the objects 1, 2, …"
        )
    return plane.astype(np.uint32)


def check_same_size(labels: Image, other: Image) -> None:
    """Refuse an image that does not lie under its labels.

    Raises
    ------
    ImageError
        With both sizes.
    """
    a, b = ({axis: n for axis, n in image.sizes.items() if axis != "C"} for image in (labels, other))
    if a != b:
        text = " and ".join(
            " ".join(f"{axis}={n}" for axis, n in sizes.items()) + f" ({image.source})"
            for sizes, image in ((a, labels), (b, other))
        )
        raise ImageError(f"expected images of one size, found {text}; give the image that the labels were made from")


def units(image: Image, *, plane_by_plane: bool) -> Iterator[tuple[int, list[int]]]:
    """Yield (t, planes) of what holds whole objects: each plane, or all planes of a frame where objects reach through them."""
    sizes = image.sizes
    for t in range(sizes["T"]):
        planes = list(range(sizes["Z"]))
        yield from ((t, [z]) for z in planes) if plane_by_plane or "Z" not in image.axes else [(t, planes)]
