"""From a file or an array to a `Segmentation`: labels or class probabilities, read unit by unit, with the classes that the file names.

A unit is what is worked on at once: a plane, or the volume of one frame.
"""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import Classes, labels_of
from forestbridge.errors import ImageError, LabelError
from forestbridge.image import AXES, Image, as_image, read_image
from forestbridge.image.result_facts import ResultFacts, read_result_facts
from forestbridge.image.source import shown
from forestbridge.labels.names import DEFAULT_COLOURS
from forestbridge.labels.rasters import open_raster

_logger = logging.getLogger(__name__)

BACKGROUND_NAMES = ("background", "bg")
"""Names of the background class, in any case."""

MAX_CLASSES = 255
"""Most label values that count as classes: more are objects already, or no labels."""

Source = str | os.PathLike[str] | Image | NDArray
"""A file, an open image, or an array."""

ClassName = int | str
"""A class by its value or its name."""


class Unit(NamedTuple):
    """Frame and plane; without `z` all of the frame: a volume, or a plane where the image has no planes."""

    t: int
    z: int | None


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labels or class probabilities with what their values mean.

    Attributes
    ----------
    image
        (T, Z, Y, X) integers without the axes that there are not; or with a class axis C, floats.
    classes
        Of the labels as painted; of probabilities in the order of C.
    background
        Label value of what is no object; pixels of value 0 are none either.
    provenance
        What the file says about how it was made.
    """

    image: Image
    classes: Classes
    background: int
    provenance: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_probabilities(self) -> bool:
        """Whether there is a class axis."""
        return "C" in self.image.axes

    @property
    def axes(self) -> str:
        """Axes of its label image."""
        return self.image.axes.replace("C", "")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of its label image."""
        return tuple(self.image.sizes[a] for a in self.axes)

    def units(self, *, plane_by_plane: bool = False) -> list[Unit]:
        """Return the units of the image in the order of a file."""
        return units_of(self.image, plane_by_plane=plane_by_plane)

    def labels(self, unit: Unit) -> NDArray[np.integer]:
        """Return the labels of a unit: (Y, X) or (Z, Y, X), the values as painted."""
        if self.is_probabilities:
            return labels_of(self.probabilities(unit), self.classes.values)
        pixels = read_unit(self.image, unit)
        if pixels.dtype.kind == "f":
            _check_whole(pixels, self.image.source)
            return pixels.astype(np.uint32)
        return pixels.astype(np.uint8) if pixels.dtype == bool else pixels

    def probabilities(self, unit: Unit) -> NDArray[np.float32]:
        """Return the probabilities of a unit: (K, Y, X) or (K, Z, Y, X) float32.

        Raises
        ------
        ImageError
            If a value is not finite.
        """
        pixels = np.asarray(read_unit(self.image, unit), np.float32)
        if not np.isfinite(pixels).all():
            raise ImageError(
                f"{self.image.source}: expected finite probabilities, found NaN or infinite ones at t={unit.t}"
                f"{'' if unit.z is None else f' z={unit.z}'}; predict the image again"
            )
        return pixels

    def value_of(self, wanted: ClassName) -> int:
        """Return the value of a class given by value or name.

        Raises
        ------
        LabelError
            If there is no such class.
        """
        for value, name in zip(self.classes.values, self.classes.names, strict=True):
            if str(wanted) in (str(value), name):
                return value
        known = ", ".join(f"{v} ({n})" for v, n in zip(self.classes.values, self.classes.names, strict=True))
        raise LabelError(
            f"{self.image.source}: expected one of the classes {known or '(there is none)'}, found {wanted!r}; "
            "choose one of these, by value or name"
        )

    def chosen(self, wanted: Sequence[ClassName] | None) -> Classes:
        """Return the classes that were asked for in ascending order; by default all but the background.

        Raises
        ------
        LabelError
            If there is no such class.
        ValueError
            If a class is asked for twice, or is the background.
        """
        values = (
            [self.value_of(w) for w in wanted] if wanted else [v for v in self.classes.values if v != self.background]
        )
        if len(set(values)) < len(values) or (wanted and self.background in values):
            raise ValueError(
                f"expected different classes, none of them the background {self.background}, found {list(wanted or ())}; "
                "leave it out, or choose another background (--background)"
            )
        table = {v: (n, c) for v, n, c in zip(*self.classes, strict=True)}
        chosen = sorted(v for v in values if v != 0)
        return Classes(tuple(chosen), tuple(table[v][0] for v in chosen), tuple(table[v][1] for v in chosen))


def open_segmentation(
    source: Source, *, axes: str | None = None, scene: int | None = None, background: ClassName | None = None
) -> Segmentation:
    """Open labels or probabilities.

    The background is the class of that name; without one 0 where it occurs, else the smallest value. A label image without a table
    of classes that holds one value only has no background but 0.

    Parameters
    ----------
    source
        A file that `read_image` reads, of labels also one with a palette; or an array: integers (Y, X), (Z, Y, X), (T, Z, Y, X), floats
        (K, Y, X) or (K, Z, Y, X), or with the axes named by `axes`.
    axes
        For a file that does not say, and for arrays.
    scene
        Which image of a file with several.
    background
        Value or name of the background class.

    Raises
    ------
    ImageError
        If the file cannot be read, or is neither labels nor probabilities.
    LabelError
        If there are more than `MAX_CLASSES` values, or no such background.
    """
    if isinstance(source, str | os.PathLike):
        image, facts = _open_file(Path(source), axes, scene)
    elif isinstance(source, Image):
        image, facts = source, ResultFacts({}, {}, {})
    else:
        image, facts = _as_label_image(np.asarray(source), axes), ResultFacts({}, {}, {})
    image = _without_single_channel(image)
    if "C" in image.axes:
        return _probabilities(image, facts, background)
    scan = not facts.names or (background is None and _needs_pixels(facts))
    found = _values(image) if scan else set(facts.names)
    classes = _table(sorted((found - {0}) | set(facts.names)), facts)
    segmentation = Segmentation(image, classes, 0, facts.provenance)
    if background is not None:
        value = 0 if str(background) == "0" else segmentation.value_of(background)
        return replace(segmentation, background=value)
    return replace(segmentation, background=_background(classes, found, has_table=bool(facts.names), name=image.source))


def units_of(image: Image, *, plane_by_plane: bool = False) -> list[Unit]:
    """Return the units of an image in the order of a file: frames, or the planes of each frame."""
    sizes = image.sizes
    planes = range(sizes["Z"]) if plane_by_plane and "Z" in image.axes else [None]
    return [Unit(t, z) for t in range(sizes["T"]) for z in planes]


def read_unit(image: Image, unit: Unit) -> NDArray:
    """Return the pixels of a unit in the image's own dtype: (C, Z, Y, X) without the axes that it does not have."""
    wanted = {a: slice(None) for a in AXES} | {"T": slice(unit.t, unit.t + 1)}
    if unit.z is not None:
        wanted["Z"] = slice(unit.z, unit.z + 1)
    pixels = np.asarray(image.data[tuple(wanted[a] for a in image.axes)])
    single = "T" if unit.z is None else "TZ"
    return pixels.reshape([n for a, n in zip(image.axes, pixels.shape, strict=True) if a not in single])


def place_of(unit: Unit, axes: str, shape: Sequence[int]) -> tuple[slice, ...]:
    """Return where a unit lies in an image with these axes."""
    place = dict(zip(axes, (slice(0, n) for n in shape), strict=True))
    place["T"] = slice(unit.t, unit.t + 1)
    if unit.z is not None:
        place["Z"] = slice(unit.z, unit.z + 1)
    return tuple(place[a] for a in axes)


def in_place(pixels: NDArray, unit: Unit, axes: str) -> NDArray:
    """Return the pixels of a unit with the axes of the image it belongs to, as they are written."""
    single = "T" if unit.z is None else "TZ"
    shape = iter(pixels.shape)
    return pixels.reshape([1 if a in single else next(shape) for a in axes])


def _open_file(path: Path, axes: str | None, scene: int | None) -> tuple[Image, ResultFacts]:
    if path.suffix.lower() == ".png" or _has_palette(path):
        raster = open_raster(path)
        letters = axes or raster.axes or ""
        if len(letters) != len(raster.data.shape) or set(letters) - set(AXES):
            raise ImageError(
                f"{shown(path)}: expected axes with a name, found shape {tuple(raster.data.shape)}; say it with --axes "
                f"{'TZCYX'[-len(raster.data.shape) :]}"
            )
        names = dict(raster.names)
        return Image(raster.data, letters, {}, source=shown(path)), ResultFacts(names, dict(raster.colours), {})
    return read_image(path, axes=axes, scene=scene), read_result_facts(path)


def _has_palette(path: Path) -> bool:
    """Whether a TIFF's labels are the numbers of a palette's colours; ImageJ's own are read as images."""
    import tifffile

    if not path.is_file() or path.suffix.lower() not in (".tif", ".tiff"):
        return False
    try:
        with tifffile.TiffFile(path) as tif:
            return tif.pages.first.photometric == tifffile.PHOTOMETRIC.PALETTE and tif.imagej_metadata is None
    except (tifffile.TiffFileError, OSError, ValueError, KeyError, IndexError, TypeError):
        return False  # `read_image` says what is wrong


def _as_label_image(array: NDArray, axes: str | None) -> Image:
    """Return an array as an image; without `axes` integers are planes, floats have classes first."""
    known = {2: "YX", 3: "ZYX", 4: "TZYX"} if array.dtype.kind in "bui" else {3: "CYX", 4: "CZYX", 5: "TCZYX"}
    if axes is None and array.ndim not in known:
        raise ImageError(
            f"expected labels as integers (Y, X), (Z, Y, X) or (T, Z, Y, X), or probabilities as floats (K, Y, X) or "
            f"(K, Z, Y, X), found {array.dtype} {array.shape}; name the axes with axes='TZYX'"
        )
    return as_image(array, axes=axes or known[array.ndim])


def _without_single_channel(image: Image) -> Image:
    """Return labels without a channel axis of length 1, which HDF5 has; integers with several channels are refused."""
    if "C" not in image.axes or image.dtype.kind == "f":
        if "C" not in image.axes or image.n_channels > 1:
            return image
    elif image.n_channels > 1:
        raise ImageError(
            f"{image.source}: expected labels with one value for each pixel, or probabilities as floats, found "
            f"{image.n_channels} channels of {image.dtype}; choose the result of a prediction"
        )
    at = image.axes.index("C")
    return replace(image, data=_Squeezed(image.data, at), axes=image.axes.replace("C", ""), channel_names=())


@dataclass(frozen=True, eq=False)
class _Squeezed:
    """An array without one axis of length 1, read on demand."""

    data: object
    axis: int

    @property
    def shape(self) -> tuple[int, ...]:
        shape = self.data.shape  # type: ignore[attr-defined]
        return (*shape[: self.axis], *shape[self.axis + 1 :])

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype  # type: ignore[attr-defined]

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray:
        whole = (*key[: self.axis], slice(0, 1), *key[self.axis :])
        return np.asarray(self.data[whole]).squeeze(self.axis)  # type: ignore[index]


def _probabilities(image: Image, facts: ResultFacts, background: ClassName | None) -> Segmentation:
    k = image.n_channels
    if facts.names and len(facts.names) == k:
        classes = _table(list(facts.names), facts)
    else:
        names = image.channel_names if len(set(image.channel_names)) == k else ()
        classes = _table(range(1, k + 1), ResultFacts(dict(enumerate(names, 1)), {}, {}))
    segmentation = Segmentation(image, classes, 0, facts.provenance)
    if background is not None:
        return replace(segmentation, background=segmentation.value_of(background))
    return replace(
        segmentation, background=_background(classes, set(classes.values), has_table=True, name=image.source)
    )


def _table(values: Sequence[int], facts: ResultFacts) -> Classes:
    names = tuple(facts.names.get(v, f"class {v}") for v in values)
    colours = tuple(facts.colours.get(v, DEFAULT_COLOURS[(v - 1) % len(DEFAULT_COLOURS)]) for v in values)
    return Classes(tuple(values), names, colours)


def _named_background(names: Mapping[int, str]) -> int | None:
    return next((v for v, name in names.items() if name.strip().casefold() in BACKGROUND_NAMES), None)


def _needs_pixels(facts: ResultFacts) -> bool:
    """Whether the pixels must say which values there are: without a table, or where it names no background."""
    return len(facts.names) != 1 and _named_background(facts.names) is None


def _background(classes: Classes, found: set[int], *, has_table: bool, name: str) -> int:
    """Return the background's value by the rule of `open_segmentation`, and say it where the file leaves it open."""
    named = _named_background(dict(zip(classes.values, classes.names, strict=True)))
    if named is not None:
        return named
    if 0 in found or len(classes.values) < 2:
        if not has_table and 0 not in found and len(found) == 1:
            _logger.info(
                "%s: all pixels have the value %d, which counts as an object; --background %d says otherwise",
                *(name, *found, *found),
            )
        return 0
    _logger.info("%s: the smallest value %d counts as background; --background says otherwise", name, classes.values[0])
    return classes.values[0]


def _values(image: Image) -> set[int]:
    """Return the values that occur, plane by plane.

    Raises
    ------
    LabelError
        If they are too many for classes, or below 0.
    ImageError
        If they are no whole numbers.
    """
    found: set[int] = set()
    for unit in units_of(image, plane_by_plane=True):
        found |= _values_of(read_unit(image, unit), image.source)
        if len(found) > MAX_CLASSES:
            raise LabelError(
                f"{image.source}: expected at most {MAX_CLASSES} classes, found {len(found)} values and more; objects have "
                "their numbers already, and intensities are no labels: give the classes that a forest predicted"
            )
    if min(found) < 0:
        raise LabelError(f"{image.source}: expected label values of 0 or more, found {min(found)}; save them again")
    return found


def _values_of(pixels: NDArray, name: str) -> set[int]:
    if pixels.dtype.kind == "f":
        _check_whole(pixels, name)
        pixels = pixels.astype(np.int64)
    if pixels.dtype in (np.dtype(np.uint8), np.dtype(bool)):
        return set(np.flatnonzero(np.bincount(pixels.ravel(), minlength=1)).tolist())
    return set(np.unique(pixels).tolist())


def _check_whole(pixels: NDArray, name: str) -> None:
    """Refuse floats that are no labels: ImageJ holds large ones as floats."""
    if not np.isfinite(pixels).all() or (pixels < 0).any() or (pixels != np.floor(pixels)).any():
        raise ImageError(
            f"{name}: expected labels as whole numbers of 0 or more, or probabilities with an axis of classes, found floats "
            "without one; give a result of forestbridge predict (labels or probabilities)"
        )
