"""OME-Zarr 0.4 and 0.5 images: from the folder's metadata to lazy pixels of the highest resolution."""

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError
from forestbridge.image.source import Source, open_source, shown
from forestbridge.image.units import micrometres, seconds

NODE_FILES = ("zarr.json", ".zgroup", ".zattrs", ".zarray")
"""Files that make a folder a Zarr node, of version 3 and 2."""


@dataclass(frozen=True)
class ZarrPixels:
    """One array of a Zarr folder; a Zarr array holds no open file."""

    array: Any
    name: str

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array."""
        return tuple(self.array.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the array."""
        return np.dtype(self.array.dtype)

    def read(self, region: tuple[slice, ...]) -> NDArray:
        """Return a region."""
        try:
            return np.asarray(self.array[region])
        except (ValueError, RuntimeError, OSError, zlib.error) as error:
            place = ", ".join(f"{s.start}:{s.stop}" for s in region)
            raise ImageError(
                f"{self.name}: expected whole chunks around [{place}], found a damaged one ({error}); copy or export "
                "the image again"
            ) from error


def open_ome_zarr(path: str, scene: int | None) -> tuple[ZarrPixels, str, Source, dict[str, Any]]:
    """Return what an OME-Zarr image holds; no pixel is read.

    Parameters
    ----------
    path
        The folder of the image.
    scene
        Which image of a folder with several; None if it has one only.

    Returns
    -------
    pixels
        Of the highest resolution.
    axes
        One letter per axis of the array; Q for axes that are no time, channel or space.
    source
        The metadata file of the array, as it is now.
    calibration
        `pixel_size`, `frame_interval` and `channel_names` as in `Image`.

    Raises
    ------
    ImageError
        If the folder is no OME-Zarr image of version 0.4 or 0.5, is damaged, or holds several images and no scene is
        given.
    """
    name = shown(path)
    metadata = _image_metadata(path, name)
    if "plate" in metadata:
        try:
            well = metadata["plate"]["wells"][0]["path"]
        except (KeyError, TypeError, IndexError):
            well = "A/1"
        raise ImageError(
            f"{name}: expected one image, found a plate of wells; give the path of one of its images, {name}/{well}/0"
        )
    if "multiscales" not in metadata and "bioformats2raw.layout" in metadata:
        return open_ome_zarr(_scene_folder(path, scene, name), None)
    scales = metadata.get("multiscales")
    if not isinstance(scales, list) or not scales or not all(isinstance(s, dict) for s in scales):
        raise ImageError(
            f"{name}: expected an OME-Zarr image, found a Zarr folder without `multiscales`; give the folder of the "
            "image itself"
        )
    if (scene is None and len(scales) > 1) or not 0 <= (scene or 0) < len(scales):
        listed = ", ".join(f"{i}: {s.get('name', '')}" for i, s in enumerate(scales))
        raise ImageError(
            f"{name}: expected the number of one image, found {len(scales)} in the folder ({listed}); choose with "
            "--scene 0 (scene=0)"
        )
    scale = scales[scene or 0]
    version = str(metadata.get("version", scale.get("version", "0.4")))
    if version not in ("0.4", "0.5"):
        raise ImageError(
            f"{name}: expected OME-Zarr 0.4 or 0.5, found version {version}; convert it with the ome-zarr tools"
        )
    try:
        axes = [(str(a["name"]), str(a.get("type", "")), a.get("unit")) for a in scale["axes"]]
        level = scale["datasets"][0]
        factors = _scale_factors(scale, level, len(axes))
        array_path = Path(path, *str(level["path"]).split("/"))
    except (KeyError, TypeError, IndexError, ValueError, AttributeError) as error:
        raise ImageError(
            f"{name}: expected axes and datasets in `multiscales`, found them incomplete ({error!r}); write the image "
            "again"
        ) from error
    array, source = _open_array(path, array_path, name)
    if array.ndim != len(axes):
        raise ImageError(
            f"{name}: expected an array of {len(axes)} axes ({''.join(a for a, _, _ in axes)}), found shape "
            f"{array.shape}; write it again"
        )
    letters = "".join(_letter(axis, kind) for axis, kind, _ in axes)
    letters = "".join("Q" if letters.count(a) > 1 else a for a in letters)
    return ZarrPixels(array, name), letters, source, _calibration(axes, letters, factors, metadata, array.shape)


def _image_metadata(path: str, name: str) -> dict[str, Any]:
    """Return the attributes of a group: under `ome` since 0.5, directly before."""
    import zarr
    import zarr.errors
    from zarr.storage import LocalStore

    try:
        node = zarr.open(LocalStore(path, read_only=True), mode="r")
        attributes = dict(node.attrs)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zarr.errors.BaseZarrError) as error:
        raise ImageError(
            f"{name}: expected an OME-Zarr image, found Zarr metadata that cannot be read ({error}); copy the folder "
            "again"
        ) from error
    if isinstance(node, zarr.Array):
        raise ImageError(
            f"{name}: expected the folder of an OME-Zarr image, found one of its arrays; give the folder above it"
        )
    found = attributes.get("ome", attributes)
    if not isinstance(found, dict):
        raise ImageError(
            f"{name}: expected OME metadata as a mapping, found {type(found).__name__}; write the image again"
        )
    return found


def _open_array(path: str, array_path: Path, name: str) -> tuple[Any, Source]:
    """Open the array of a level, which must lie inside the folder."""
    import zarr
    import zarr.errors
    from zarr.storage import LocalStore

    if not array_path.resolve().is_relative_to(Path(path).resolve()):
        raise ImageError(
            f"{name}: expected an array inside the folder, found the path {shown(array_path)}; write the image again"
        )
    try:
        array = zarr.open_array(LocalStore(array_path, read_only=True), mode="r")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, zarr.errors.BaseZarrError) as error:
        raise ImageError(
            f"{name}: expected the array {array_path.name}, found none that can be read ({error}); copy the folder "
            "again"
        ) from error
    node = next((array_path / f for f in ("zarr.json", ".zarray") if (array_path / f).exists()), array_path)
    return array, open_source(node)


def _scene_folder(path: str, scene: int | None, name: str) -> str:
    """Return the image of a folder with several, as Bio-Formats writes them: numbered from 0."""
    numbers = sorted(int(p.name) for p in Path(path).iterdir() if p.name.isdecimal())
    if scene is None and len(numbers) == 1:
        scene = numbers[0]
    if scene is None or scene not in numbers:
        raise ImageError(
            f"{name}: expected the number of one image, found {len(numbers)} in the folder ({numbers}); choose with "
            "--scene 0 (scene=0)"
        )
    return str(Path(path, str(scene)))


def _scale_factors(scale: Mapping[str, Any], level: Mapping[str, Any], n: int) -> list[float]:
    """Return the size of a pixel along each axis: the level's scale times that of the whole image."""
    factors = [1.0] * n
    for transforms in (level.get("coordinateTransformations", []), scale.get("coordinateTransformations", [])):
        for transform in transforms:
            if transform.get("type") == "scale":
                factors = [f * float(s) for f, s in zip(factors, transform["scale"], strict=True)]
    return factors


def _letter(axis: str, kind: str) -> str:
    """Return T, C, Z, Y or X by an axis' name, or by its type where that leaves no choice."""
    if axis.upper() in ("T", "C", "Z", "Y", "X"):
        return axis.upper()
    return {"time": "T", "channel": "C"}.get(kind, "Q")


def _calibration(
    axes: list[tuple[str, str, str | None]],
    letters: str,
    factors: list[float],
    metadata: Mapping[str, Any],
    shape: tuple[int, ...],
) -> dict[str, Any]:
    """Return `pixel_size`, `frame_interval` and `channel_names`; a scale without a unit is no size."""
    pixel_size: dict[str, float] = {}
    interval = None
    for letter, (_, _, unit), factor in zip(letters, axes, factors, strict=True):
        if letter in "ZYX":
            size = micrometres(factor, unit)
            if size is not None and math.isfinite(size):
                pixel_size[letter.lower()] = size
        elif letter == "T":
            interval = seconds(factor, unit)
    omero = metadata.get("omero")
    channels = omero.get("channels") if isinstance(omero, dict) else None
    names = (
        tuple(str(c.get("label", "")) for c in channels if isinstance(c, dict)) if isinstance(channels, list) else ()
    )
    n = dict(zip(letters, shape, strict=True)).get("C", 1)
    return {
        "pixel_size": pixel_size,
        "frame_interval": interval,
        "channel_names": names if len(names) == n and all(names) else (),
    }
