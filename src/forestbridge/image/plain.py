"""Pixels of NPY, PNG and JPEG files: arrays without any word about size, time or channels."""

import tokenize
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import UnidentifiedImageError

from forestbridge.errors import ImageError
from forestbridge.image.lazy import remember
from forestbridge.image.source import Source, cut_off


@dataclass(frozen=True)
class NpyPixels:
    """An array in an NPY file, mapped when it is read."""

    file: Source
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, region: tuple[slice, ...]) -> NDArray:
        """Return a region."""
        return np.array(np.load(self.file.path, mmap_mode="r", allow_pickle=False)[region])


@dataclass(frozen=True)
class PicturePixels:
    """A PNG or JPEG file: (Y, X) or (Y, X, S). It can only be decoded whole, and is then kept for the next region."""

    file: Source
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, region: tuple[slice, ...]) -> NDArray:
        """Return a region."""
        return np.array(remember(self.file, self._decode)[region])

    def _decode(self) -> NDArray:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
                with Pillow.open(self.file.path) as picture:
                    return np.asarray(picture)
        except (OSError, ValueError, SyntaxError) as error:  # Pillow's own for cut and damaged files
            raise ImageError(
                f"{self.file.name}: expected a whole picture, found one that ends early or is damaged ({error}); copy "
                "or export it again"
            ) from error


def open_npy(source: Source) -> tuple[NpyPixels, str]:
    """Return the pixels of an NPY file and their axes: YX for two dimensions, else unknown ones before YX.

    Raises
    ------
    ImageError
        If the file is damaged, cut off, or holds anything but numbers.
    """
    try:
        with Path(source.path).open("rb") as file:
            version = np.lib.format.read_magic(file)
            read_header = (
                np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(file)
            start = file.tell()
    except (ValueError, OSError, EOFError, SyntaxError, tokenize.TokenError) as error:
        raise ImageError(
            f"{source.name}: expected an NPY file, found a damaged one ({error}); save it again with numpy.save"
        ) from error
    if dtype.hasobject or dtype.names:
        raise ImageError(
            f"{source.name}: expected an array of numbers, found {dtype}; save the pixels alone with numpy.save"
        )
    needed = start + int(np.prod(shape, dtype=np.int64)) * dtype.itemsize
    if needed > source.size:
        raise cut_off(source.name, f"{needed} bytes for an array {shape} of {dtype}", f"{source.size} bytes")
    if len(shape) < 2 or len(shape) > 5:
        raise ImageError(
            f"{source.name}: expected an array of 2 to 5 dimensions, found shape {shape}; reshape it to an image"
        )
    return NpyPixels(source, shape, dtype), "Q" * (len(shape) - 2) + "YX"


def open_picture(source: Source) -> tuple[PicturePixels, str, bool]:
    """Return the pixels of a PNG or JPEG file, its axes (YX or YXS), and whether the last sample is an alpha channel.

    Raises
    ------
    ImageError
        If the file is damaged, or its pixels are no grey values or RGB colours of a depth that can be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Pillow.DecompressionBombWarning)
            with Pillow.open(source.path) as picture:
                mode, (width, height), kind = picture.mode, picture.size, picture.format
                frames = getattr(picture, "n_frames", 1)
    except Pillow.DecompressionBombError as error:
        raise ImageError(
            f"{source.name}: expected a picture of up to {2 * (Pillow.MAX_IMAGE_PIXELS or 0)} pixels, since it must "
            f"be decoded whole, found a larger one ({error}); convert it to tiled TIFF or OME-Zarr"
        ) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError) as error:
        raise ImageError(
            f"{source.name}: expected a PNG or JPEG picture, found a cut or damaged one ({error}); copy or export it "
            "again"
        ) from error
    if frames > 1:
        raise ImageError(f"{source.name}: expected one picture, found {frames} in one file; save them as a TIFF stack")
    if mode in ("P", "PA"):
        raise ImageError(
            f"{source.name}: expected intensities, found colours by number (a palette image); convert it to RGB"
        )
    if kind == "PNG" and mode in ("RGB", "RGBA", "LA") and _png_bits(source) == 16:
        raise ImageError(
            f"{source.name}: expected 8 bits for each colour, found 16, which PNG readers halve; save it as TIFF"
        )
    modes = {
        "1": ((), "bool"), "L": ((), "u1"), "I;16": ((), "u2"), "I;16B": ((), ">u2"), "I": ((), "i4"),
        "LA": ((2,), "u1"), "RGB": ((3,), "u1"), "RGBA": ((4,), "u1"),
    }  # fmt: skip
    if mode not in modes:
        raise ImageError(f"{source.name}: expected a grey or RGB picture, found the colours {mode}; convert it to RGB")
    samples, dtype = modes[mode]
    pixels = PicturePixels(source, (height, width, *samples), np.dtype(dtype))
    return pixels, "YXS" if samples else "YX", mode in ("LA", "RGBA")


def _png_bits(source: Source) -> int:
    """Return the bits of a sample: the byte after width and height in the header of a PNG file."""
    with Path(source.path).open("rb") as file:
        return file.read(25)[24]
