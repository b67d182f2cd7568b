"""Image files: from a path to a lazy `Image`, with axes from the file or from the user, never guessed."""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from forestbridge.errors import ImageError
from forestbridge.image.hdf5 import open_hdf5_image, split_internal
from forestbridge.image.image import Image
from forestbridge.image.lazy import arrange
from forestbridge.image.nrrd import MAGIC, open_nrrd
from forestbridge.image.ome_zarr import NODE_FILES, open_ome_zarr
from forestbridge.image.plain import open_npy, open_picture
from forestbridge.image.source import PathLike, Source, open_source, shown
from forestbridge.image.tiff import open_tiff

_logger = logging.getLogger(__name__)

READABLE = "TIFF, OME-TIFF, ImageJ TIFF, PNG, JPEG, NPY, NRRD, HDF5 or an OME-Zarr folder"
"""Formats that `read_image` reads, as text."""

_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_SUFFIXES = (
    ".ome.tiff",
    ".ome.tif",
    ".ome.zarr",
    ".features.ome.zarr",
    ".tiff",
    ".tif",
    ".zarr",
    ".png",
    ".jpeg",
    ".jpg",
    ".npy",
    ".nrrd",
    ".h5",
    ".hdf5",
    ".hdf",
)


def read_image(
    path: PathLike,
    *,
    axes: str | None = None,
    channels: Sequence[int] | None = None,
    nan: float | None = None,
    scene: int | None = None,
) -> Image:
    """Open an image; its pixels are read when regions of it are asked for.

    Parameters
    ----------
    path
        A TIFF (plain, ImageJ, OME, BigTIFF; strips or tiles), PNG, JPEG, NPY, NRRD or HDF5 file, or an OME-Zarr folder (0.4, 0.5). Of an
        HDF5 file with several datasets the name follows: ``a.h5/volume/data``.
    axes
        What the dimensions of the file are, in its order: letters of "TCZYX", S for the colour samples of a pixel (the
        same as C). Needed where the file does not say; otherwise replaces what it says.
    channels
        Which channels to take, in this order.
    nan
        Value that replaces NaN and infinite pixels; None refuses them when they are read.
    scene
        Which image of a file with several, from 0.

    Returns
    -------
    image
        With axes in the order of "TCZYX". Axes of length 1 that a TIFF does not need are left out; an alpha channel is
        left out.

    Raises
    ------
    ImageError
        If the file is missing, closed to us, damaged, cut off or no image; if its axes are not known; if it changes
        while it is read.
    MissingExtraError
        If a TIFF's compression needs a package that is not installed.
    """
    image = _open(path, axes, scene)
    image = image if nan is None else replace(image, nan=nan)
    return image if channels is None else image.select_channels(channels)


def _open(path: PathLike, axes: str | None, scene: int | None) -> Image:
    """Open an image by the kind of its file."""
    path, inside = split_internal(path)
    source = open_source(path)
    calibration: dict[str, Any] = {"pixel_size": {}, "channel_names": ()}
    alpha = False
    start = b"" if Path(path).is_dir() else _first_bytes(source)
    if not start:
        _check_folder(path)
        pixels, stored_axes, source, calibration = open_ome_zarr(path, scene)
    elif start.startswith(_TIFF):
        pixels, stored_axes, alpha, calibration = open_tiff(source, scene)
    elif scene:
        raise ImageError(
            f"{source.name}: expected scene 0, since such a file holds one image, found {scene}; leave it out"
        )
    elif start.startswith(b"\x89HDF"):
        pixels, stored_axes, calibration = open_hdf5_image(source, inside)
    elif start.startswith(b"\x93NUMPY"):
        pixels, stored_axes = open_npy(source)
    elif start.startswith(MAGIC):
        pixels, stored_axes, calibration = open_nrrd(source)
    elif start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
        pixels, stored_axes, alpha = open_picture(source)
    else:
        raise ImageError(f"{source.name}: expected {READABLE}, found a file of another kind{_advice(path, start)}")
    array, letters = arrange(pixels, stored_axes, source, axes=axes, alpha=alpha)
    if alpha:
        _logger.info("%s: the alpha channel is left out", shown(path))
    if not calibration["pixel_size"]:
        _logger.info("%s: no pixel size in the file, sizes are in pixels", shown(path))
    n = dict(zip(letters, array.shape, strict=True)).get("C", 1)
    if len(calibration["channel_names"]) != n:  # other axes than the file's were chosen
        calibration["channel_names"] = ()
    name = path if inside is None else f"{path}/{inside}"
    return Image(data=array, axes=letters, source=shown(name), **calibration)


def describe_image(image: Image) -> dict[str, Any]:
    """Return what is known of an image without reading a pixel, as JSON values.

    Returns
    -------
    facts
        source, axes, shape, dtype, channels (number), channel_names, pixel_size (micrometres), frame_interval (seconds
        or None), bytes (of all pixels, uncompressed).
    """
    n = 1
    for length in image.shape:
        n *= length
    return {
        "source": image.source,
        "axes": image.axes,
        "shape": list(image.shape),
        "dtype": image.dtype.name,
        "channels": image.n_channels,
        "channel_names": list(image.channel_names),
        "pixel_size": dict(image.pixel_size),
        "frame_interval": image.frame_interval,
        "bytes": n * image.dtype.itemsize,
    }


def check_same_kind(images: Sequence[Image]) -> None:
    """Refuse images that one encoder cannot treat alike: other channels or another dtype than most of them.

    Raises
    ------
    ImageError
        With the images that differ.
    """
    kinds = [(image.n_channels, image.dtype.name) for image in images]
    if len(set(kinds)) <= 1:
        return
    (n, dtype), _ = Counter(kinds).most_common(1)[0]
    others = [f"{i.source} ({k[0]} of {k[1]})" for i, k in zip(images, kinds, strict=True) if k != (n, dtype)]
    raise ImageError(
        f"expected images with the same channels and dtype ({n} of {dtype}, as most have), found {', '.join(others)}; "
        "choose channels with --channels, convert these images, or treat them on their own"
    )


def is_named_like_image(path: PathLike) -> bool:
    """Whether a file or folder is named like an image that `read_image` reads; feature stores are none."""
    name = Path(path).name.lower()
    return name.endswith(_SUFFIXES) and not name.endswith(".features.ome.zarr")


def is_image_folder(path: PathLike) -> bool:
    """Whether a folder is an OME-Zarr image or a feature store, not one that holds files."""
    return any((Path(path) / name).exists() for name in NODE_FILES) or Path(path).name.lower().endswith(".zarr")


def base_name(path: PathLike) -> str:
    """Return a file's name without its suffix (`.ome.tif` is one): what output names are made from."""
    file, inside = split_internal(path)
    name = Path(file).name
    suffix = max((s for s in _SUFFIXES if name.lower().endswith(s)), key=len, default=Path(name).suffix)
    base = name[: len(name) - len(suffix)] or name
    return base if inside is None else f"{base}-{inside.replace('/', '-')}"  # as ilastik names it


def check_distinct_names(paths: Sequence[PathLike]) -> None:
    """Refuse files whose outputs would overwrite each other: of the same name, whatever suffix and case.

    Raises
    ------
    ImageError
        With the files that share a name.
    """
    counts = Counter(base_name(p).casefold() for p in paths)
    doubles = [shown(p) for p in paths if counts[base_name(p).casefold()] > 1]
    if doubles:
        raise ImageError(
            f"expected files with different names, since each gives an output of its name, found {', '.join(doubles)}; "
            "rename them or treat them one folder at a time"
        )


def _first_bytes(source: Source) -> bytes:
    """Return the bytes by which formats are told apart."""
    try:
        with Path(source.path).open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise ImageError(
            f"{source.name}: expected a readable file, found {error.strerror}; check its permissions"
        ) from error
    if not start:
        raise ImageError(f"{source.name}: expected an image, found an empty file (0 bytes); copy or export it again")
    return start


def _check_folder(path: str) -> None:
    """Refuse a folder that is no Zarr node, and say what would do."""
    folder = Path(path)
    if any((folder / f).exists() for f in NODE_FILES):
        return
    inside = sorted(p.name for p in folder.iterdir() if not p.name.startswith("."))
    hint = f"; give one of its files, for example {shown(inside[0])}" if inside else ""
    raise ImageError(
        f"{shown(path)}: expected an image file or an OME-Zarr folder, found a folder without Zarr metadata{hint}"
    )


def _advice(path: str, start: bytes) -> str:
    """Return what to do with a file that is no image of ours."""
    lower = path.lower()
    if lower.endswith(".zarr"):
        return "; an OME-Zarr image is a folder, unpack it first"
    if start.startswith(b"PK"):
        return " (a zip archive); unpack it first"
    return "; convert it to OME-TIFF, for example with Fiji or Bio-Formats"
