"""Label images out: an empty one to paint on, or scribbles, as ImageJ TIFF, NPY or PNG."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import LabelError
from forestbridge.files import new_file
from forestbridge.image import Image
from forestbridge.labels.scribbles import Scribbles

WRITTEN_SUFFIXES = (".tif", ".tiff", ".npy", ".png")

IMAGEJ_BYTES = 2**32 - 2**20
"""ImageJ TIFFs cannot be larger."""


def new_labels(image: Image) -> NDArray[np.uint8]:
    """Return an empty label image for an image.

    Returns
    -------
    labels
        uint8 zeros of the image's shape without channels: (Y, X), (Z, Y, X), (T, Y, X) or (T, Z, Y, X).
    """
    return np.zeros([n for axis, n in zip(image.axes, image.shape, strict=True) if axis != "C"], np.uint8)


def write_new_labels(path: str | Path, image: Image, *, overwrite: bool = False) -> Path:
    """Write an empty label file to paint on, with the size and pixel size of the image.

    Parameters
    ----------
    path
        .tif (uncompressed ImageJ TIFF; opens in Fiji, napari, QuPath), .npy, or .png (2D images).
    overwrite
        Replace a file that is there.

    Raises
    ------
    LabelError
        If the format cannot hold the image's size.
    OutputExistsError
        If the file is there and `overwrite` is False.
    """
    axes = image.axes.replace("C", "")
    return _write(Path(path), new_labels(image), axes, dict(image.pixel_size), image.frame_interval, overwrite)


def write_scribbles(
    path: str | Path, scribbles: Scribbles, *, image: Image | None = None, overwrite: bool = False
) -> Path:
    """Write scribbles as a label image that `read_scribbles` gives back; names and colours are not kept.

    Parameters
    ----------
    path
        .tif, .npy, or .png (2D).
    image
        Gives the pixel size of a TIFF.

    Raises
    ------
    LabelError
        If the format cannot hold the size.
    OutputExistsError
        If the file is there and `overwrite` is False.
    """
    frames, planes = scribbles.shape[:2]
    stack = [scribbles.at_plane(t, z) for t in range(frames) for z in range(planes)]
    axes = scribbles.axes.replace("Q", "Z")
    sizes = dict(zip("TZYX", scribbles.shape, strict=True))
    labels = np.stack(stack).reshape([sizes[a] for a in axes])  # (T*Z, Y, X) -> the axes it has
    return _write(
        Path(path),
        labels,
        axes,
        dict(image.pixel_size) if image else {},
        image.frame_interval if image else None,
        overwrite,
    )


def _write(
    path: Path, labels: NDArray, axes: str, pixel_size: dict[str, float], frame_interval: float | None, overwrite: bool
) -> Path:
    suffix = path.suffix.lower()
    if suffix not in WRITTEN_SUFFIXES:
        raise LabelError(
            f"{path}: expected a label file of the type {', '.join(WRITTEN_SUFFIXES)}, found {suffix or 'no suffix'}; "
            "choose one of them"
        )
    if suffix == ".png" and (labels.ndim > 2 or labels.dtype.itemsize > 2):
        raise LabelError(
            f"{path}: expected 2D labels of at most 65535 for a PNG, found {axes} {labels.shape} {labels.dtype}; write "
            "a .tif"
        )
    if suffix in (".tif", ".tiff") and labels.nbytes > IMAGEJ_BYTES:
        raise LabelError(
            f"{path}: expected at most 4 GiB for an ImageJ TIFF, found {labels.nbytes >> 20} MiB; write a .npy"
        )
    with new_file(path, overwrite=overwrite) as part:
        if suffix == ".npy":
            with part.open("wb") as file:
                np.save(file, labels, allow_pickle=False)
        elif suffix == ".png":
            from PIL import Image as Pillow

            Pillow.fromarray(labels).save(part, format="PNG")
        else:
            _write_tiff(part, labels, axes, pixel_size, frame_interval)
    return path


def _write_tiff(
    path: Path, labels: NDArray, axes: str, pixel_size: dict[str, float], frame_interval: float | None
) -> None:
    import tifffile

    metadata: dict[str, Any] = {"axes": axes}
    resolution = None
    if {"y", "x"} <= set(pixel_size):
        resolution = (1 / pixel_size["x"], 1 / pixel_size["y"])
        metadata["unit"] = "um"
    if "z" in pixel_size:
        metadata["spacing"] = pixel_size["z"]
    if frame_interval is not None:
        metadata["finterval"] = frame_interval
    if labels.dtype.itemsize <= 2:
        tifffile.imwrite(path, labels, imagej=True, metadata=metadata, resolution=resolution, photometric="minisblack")
    else:  # ImageJ has no 32-bit integers
        tifffile.imwrite(path, labels, metadata={"axes": axes}, resolution=resolution, photometric="minisblack")
