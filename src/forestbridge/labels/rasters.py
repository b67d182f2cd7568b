"""Label images on disk: TIFF, PNG, NPY, OME-Zarr in; a lazy array with its axes, names and colours out."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError, LabelError
from forestbridge.image.image import LazyArray
from forestbridge.image.lazy import Pixels
from forestbridge.image.ome_zarr import NODE_FILES, open_ome_zarr
from forestbridge.image.plain import open_npy
from forestbridge.image.source import Source, open_source
from forestbridge.image.tiff import DAMAGE, open_tiff, series_pixels


@dataclass(frozen=True, eq=False)
class Raster:
    """A label image as it lies on disk.

    Attributes
    ----------
    data
        Read block by block.
    axes
        One letter per dimension, "Q" for a stack of unknown kind, "S" for colour samples; None where the file does not
        tell.
    names, colours
        By label value, as far as the file has them.
    """

    data: LazyArray
    axes: str | None
    names: Mapping[int, str] = field(default_factory=dict)
    colours: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class _Stored:
    """Pixels of a file as an array that is read where it is indexed."""

    pixels: Pixels

    @property
    def shape(self) -> tuple[int, ...]:
        return self.pixels.shape

    @property
    def dtype(self) -> np.dtype:
        return self.pixels.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray:
        return self.pixels.read(tuple(slice(*s.indices(n)[:2]) for s, n in zip(key, self.shape, strict=True)))


def open_raster(path: Path) -> Raster:
    """Open a label image: TIFF (ImageJ, OME, plain pages), PNG, NPY, or the folder of an OME-Zarr label.

    Raises
    ------
    LabelError
        If a PNG or an OME-Zarr folder holds no label image.
    ImageError
        If the file is damaged, cut off or of another kind; also when it is read later.
    """
    if path.is_dir():
        return _open_zarr(path)
    source = open_source(path)
    match path.suffix.lower():
        case ".png":
            return _read_png(path)
        case ".npy":
            pixels, axes = open_npy(source)
        case _:
            pixels, axes = _open_tiff(source)
    return Raster(_Stored(pixels), _known_axes(axes))


def _open_tiff(source: Source) -> tuple[Pixels, str]:
    """Return pixels and axes; of a palette image the indices, which are the labels."""
    import tifffile

    try:
        with tifffile.TiffFile(source.path) as tiff:
            page = tiff.pages.first
            # ImageJ writes any lookup table as a palette: the image reader takes those
            indexed = page.photometric == tifffile.PHOTOMETRIC.PALETTE and tiff.imagej_metadata is None
            if indexed and len(tiff.series) == 1:
                return series_pixels(tiff, tiff.series[0], source), tiff.series[0].get_axes(squeeze=True)
    except (*DAMAGE, tifffile.TiffFileError) as error:
        logging.getLogger(__name__).debug("%s: %s; opened once more for a message", source.name, error)
    pixels, axes, _, _ = open_tiff(source, None)
    return pixels, axes


def _known_axes(axes: str) -> str | None:
    """Return the axes of a file with "Q" for one stack of unknown kind; None where more than that is unknown."""
    letters = "".join(a if a in "TCZYXS" else "Q" for a in axes)
    return letters if letters.count("Q") <= 1 and not {"Q", "Z"} <= set(letters) else None


def _read_png(path: Path) -> Raster:
    """Read a label PNG: grey of 1 to 16 bits, or with a palette, whose indices are the labels."""
    from PIL import Image

    try:
        with Image.open(path, formats=["PNG"]) as png:
            if png.mode not in ("1", "L", "P", "I", "I;16", "I;16B"):
                raise LabelError(
                    f"{path.name}: expected one integer per pixel, found colours ({png.mode}); paint class numbers "
                    "into one plane, or save with a palette (indexed colours)"
                )
            array = np.asarray(png)
            depth = _png_bit_depth(path)
            if png.mode == "L" and depth in (2, 4):
                array = array // (255 // (2**depth - 1))  # Pillow spreads few bits over 0..255
            palette = png.getpalette() if png.mode == "P" else None
    except (OSError, ValueError, SyntaxError, IndexError, Image.DecompressionBombError) as error:
        raise LabelError(
            f"{path.name}: expected a whole PNG, found one that ends early or is damaged ({error}); save or copy it "
            "again"
        ) from error
    colours = {}
    if palette:
        triples = [palette[i : i + 3] for i in range(0, len(palette) - 2, 3)]
        colours = {value: "#" + "".join(f"{c:02x}" for c in rgb) for value, rgb in enumerate(triples)}
    return Raster(array, "YX", colours=colours)


def _png_bit_depth(path: Path) -> int:
    with path.open("rb") as file:
        return file.read(25)[24]  # signature 8, chunk header 8, width 4, height 4, depth 1


def _open_zarr(path: Path) -> Raster:
    """Open the folder of a label image, or of an image with exactly one label image."""
    attributes = _attributes(path)
    labels = path if "labels" in attributes else path / "labels"
    if "image-label" not in attributes and any((labels / name).exists() for name in NODE_FILES):
        names = _attributes(labels).get("labels")
        if not isinstance(names, list) or len(names) != 1 or not isinstance(names[0], str) or ".." in names[0]:
            raise LabelError(
                f"{path.name}: expected an image with one label image, found {names or 'none'}; give the path of the "
                f"label itself, such as {path.name}/labels/NAME"
            )
        path = labels / names[0]
        attributes = _attributes(path)
    pixels, axes, _, _ = open_ome_zarr(str(path), None)
    try:
        class_names, colours = _image_label(attributes.get("image-label") or {})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise LabelError(
            f"{path.name}: expected 'colors' and 'properties' of OME-Zarr in image-label, found others ({error!r}); "
            "write the labels again"
        ) from error
    return Raster(_Stored(pixels), _known_axes(axes), class_names, colours)


def _attributes(path: Path) -> dict[str, Any]:
    """Return the OME metadata of a group, under "ome" since 0.5; empty where it cannot be read."""
    import zarr
    import zarr.errors
    from zarr.storage import LocalStore

    try:
        attributes = dict(zarr.open_group(LocalStore(path, read_only=True), mode="r").attrs)
    except (OSError, ValueError, KeyError, TypeError, zarr.errors.BaseZarrError) as error:
        raise LabelError(
            f"{path.name}: expected an OME-Zarr label image, found Zarr metadata that cannot be read ({error}); give "
            "the folder of the label, such as a.ome.zarr/labels/NAME"
        ) from error
    found = attributes.get("ome", attributes)
    return found if isinstance(found, dict) else {}


def _image_label(metadata: Mapping[str, Any]) -> tuple[dict[int, str], dict[int, str]]:
    """Return names and colours by label value; a name is what stands under "name" or "class"."""
    names, colours = {}, {}
    for entry in metadata.get("properties") or []:
        name = entry.get("name", entry.get("class"))
        if isinstance(name, str):
            names[int(entry["label-value"])] = name
    for entry in metadata.get("colors") or []:
        if rgba := entry.get("rgba"):
            colours[int(entry["label-value"])] = "#" + "".join(f"{int(c) & 255:02x}" for c in rgba[:3])
    return names, colours


def as_label_error(error: ImageError) -> LabelError:
    """Return an image reader's error as one about labels: they have no choice of a scene."""
    text, _, scene = str(error).partition("; choose with --scene")
    return LabelError(f"{text}; save the labels in a file of their own" if scene else text)
