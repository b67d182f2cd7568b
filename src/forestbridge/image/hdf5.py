"""HDF5 images, as ilastik writes and reads them: ``a.h5`` or ``a.h5/internal/path`` to lazy pixels.

Axes stand in the attribute ``axistags`` of the dataset (vigra's JSON), or in DIMENSION_LABELS.
"""

import json
import os
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError
from forestbridge.image.axistags import axes_of_tags, resolutions_of_tags
from forestbridge.image.hdf5_nodes import Kind, Node, open_hdf5
from forestbridge.image.lazy import remember
from forestbridge.image.source import PathLike, Source, shown
from forestbridge.image.units import micrometres

if TYPE_CHECKING:
    import h5py

IMAGE = Kind("an HDF5 image", ImageError, "write the image again")

SUFFIXES = (".h5", ".hdf5", ".hdf", ".ilp")
"""Files that ilastik and we look into when a path goes on behind them."""

MOST_LISTED = 20


def split_internal(path: PathLike) -> tuple[str, str | None]:
    """Return the file of a path, and the place inside it: "a.h5/volume/data" is "volume/data" in a.h5; None for a plain path."""
    text = os.fspath(path)
    whole = Path(text)
    if any(suffix in text.lower() for suffix in SUFFIXES) and not whole.exists():
        for parent in whole.parents:
            if parent.suffix.lower() in SUFFIXES and parent.is_file():
                return str(parent), whole.relative_to(parent).as_posix()
    return text, None


@dataclass(frozen=True)
class Hdf5Pixels:
    """One dataset of an HDF5 file; no file is open between two reads. Packed chunks are kept for the next region.

    Attributes
    ----------
    file, dataset
        Where it lies.
    chunks
        Shape of a packed chunk; None where the pixels lie in the file as they are.
    """

    file: Source
    dataset: str
    shape: tuple[int, ...]
    dtype: np.dtype
    chunks: tuple[int, ...] | None

    def read(self, region: tuple[slice, ...]) -> NDArray:
        """Return a region."""
        if self.chunks is None:
            return self._from_file(region)
        result = np.empty([s.stop - s.start for s in region], self.dtype)
        touched = [range(s.start // n, -(-s.stop // n)) for s, n in zip(region, self.chunks, strict=True)]
        for place in product(*touched):
            low = [p * n for p, n in zip(place, self.chunks, strict=True)]
            whole = tuple(slice(a, min(a + n, m)) for a, n, m in zip(low, self.chunks, self.shape, strict=True))
            chunk = remember((self.file, self.dataset, place), lambda whole=whole: self._from_file(whole))
            part = [slice(max(r.start, w.start), min(r.stop, w.stop)) for r, w in zip(region, whole, strict=True)]
            inside = tuple(slice(p.start - w.start, p.stop - w.start) for p, w in zip(part, whole, strict=True))
            result[tuple(slice(p.start - r.start, p.stop - r.start) for p, r in zip(part, region, strict=True))] = (
                chunk[inside]
            )
        return result

    def _from_file(self, region: tuple[slice, ...]) -> NDArray:
        with open_hdf5(Path(self.file.path), IMAGE) as root:
            dataset = root.dataset(self.dataset)
            if dataset is None or tuple(dataset.shape) != self.shape:
                raise ImageError(
                    f"{self.file.name}: expected the image {self.dataset} of the shape {self.shape}, found another; let the program that "
                    "writes it finish, then start again"
                )
            try:
                return np.asarray(dataset[region])
            except (OSError, RuntimeError) as error:
                place = ", ".join(f"{s.start}:{s.stop}" for s in region)
                raise ImageError(
                    f"{self.file.name}: expected whole pixels in {self.dataset} around [{place}], found damaged ones ({error}); copy or "
                    "export the image again"
                ) from error


def open_hdf5_image(source: Source, dataset: str | None) -> tuple[Hdf5Pixels, str, dict[str, Any]]:
    """Return what a dataset of an HDF5 file holds; no pixel is read.

    Parameters
    ----------
    source
        The file.
    dataset
        Place inside it; None if it holds one image only.

    Returns
    -------
    pixels
        Of the dataset.
    axes
        One letter for each of its axes; Q for unknown ones.
    calibration
        `pixel_size`, `frame_interval` and `channel_names` as in `Image`.

    Raises
    ------
    ImageError
        If it is damaged, holds no image or several, or a link leads out of it.
    """
    with open_hdf5(Path(source.path), IMAGE) as root:
        name = dataset or _only_image(root, source)
        found = root.dataset(name)
        if found is None:
            listed = ", ".join(_images(root)[:MOST_LISTED]) or "none"
            raise ImageError(f"{source.name}: expected an image at {shown(name)}, found none; the file holds {listed}")
        if not 2 <= len(found.shape) <= 5 or found.dtype.kind not in "buif":
            raise ImageError(
                f"{source.name}: expected an image of 2 to 5 dimensions of numbers at {shown(name)}, found {found.dtype} of the shape "
                f"{found.shape}; give another dataset: {source.name}/NAME"
            )
        pixels = Hdf5Pixels(source, name, tuple(found.shape), found.dtype, found.chunks)
        return pixels, _axes(found), _calibration(found)


def _only_image(root: Node, source: Source) -> str:
    """Return the name of the one image of a file."""
    if Path(source.path).suffix.lower() == ".ilp":
        raise ImageError(
            f"{source.name}: expected an image, found an ilastik project; give an image, and the project with --forest"
        )
    names = _images(root)
    if len(names) == 1:
        return names[0]
    listed = " or ".join(f"{source.name}/{shown(name)}" for name in names[:MOST_LISTED])
    raise ImageError(
        f"{source.name}: expected the name of one image, found {len(names) or 'no'} image(s) in the file"
        + (f"; give {listed}" if names else "; give a file with a dataset of 2 to 5 dimensions of numbers")
    )


def _images(root: Node) -> list[str]:
    """Return the names of the datasets that may be images."""
    names, waiting, seen = [], [("", root)], {root.address}
    while waiting:
        prefix, node = waiting.pop(0)
        for name in node.members():
            path = f"{prefix}{name}"
            if node.is_link(name):
                continue
            if not node.is_group(name):
                found = node.dataset(name)
                if found is not None and 2 <= len(found.shape) <= 5 and found.dtype.kind in "buif":
                    names.append(path)
            elif (inner := node.node(name)) is not None and inner.address not in seen:
                seen.add(inner.address)  # a group can contain itself
                waiting.append((f"{path}/", inner))
    return names


def _axes(dataset: "h5py.Dataset") -> str:
    """Return the axes of a dataset as its attributes name them; unknown ones are Q."""
    n = len(dataset.shape)
    tags = axes_of_tags(_text(dataset.attrs.get("axistags")))
    if tags is not None and len(tags) == n:
        return tags.upper()
    try:
        labels = "".join(_text(label) or "?" for label in dataset.attrs.get("DIMENSION_LABELS", ()))
    except TypeError:
        labels = ""
    if len(labels) == n and set(labels) <= set("tczyx") and len(set(labels)) == n:
        return labels.upper()
    return "Q" * (n - 2) + "YX"


def _calibration(dataset: "h5py.Dataset") -> dict[str, Any]:
    """Return pixel sizes: ``element_size_um`` (z, y, x) of Fiji, or the resolutions of axistags with ``axis_units``."""
    sizes: dict[str, float] = {}
    elements = np.asarray(dataset.attrs.get("element_size_um", ()))
    if elements.dtype.kind in "iuf" and elements.shape == (3,):
        known = zip("zyx", map(float, elements), strict=True)
        sizes = {axis: size for axis, value in known if (size := micrometres(value, "um")) is not None}
    else:
        units = _json(_text(dataset.attrs.get("axis_units")))
        for axis, value in resolutions_of_tags(_text(dataset.attrs.get("axistags"))).items():
            if axis in "zyx" and (size := micrometres(value, str(units.get(axis, "")))) is not None:
                sizes[axis] = size
    return {"pixel_size": sizes, "frame_interval": None, "channel_names": ()}


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return str(value) if isinstance(value, str) else None


def _json(text: str | None) -> dict[str, Any]:
    try:
        document = json.loads(text or "{}")
    except ValueError:
        return {}
    return document if isinstance(document, dict) else {}
