"""Measure objects: a label image, its image and class probabilities in; one row for each object out.

`docs/objects.md` has a line for each column. Areas are counted pixels; shapes follow `skimage.measure.regionprops`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np
from numpy.typing import NDArray

from forestbridge.image import Image, as_image, read_image
from forestbridge.objects.labelled import Source, check_same_size, open_labelled, read_plane, units
from forestbridge.objects.shapes import axes_of, hulls, perimeters
from forestbridge.objects.sums import Intensities, Sums, put_together, sorted_pixels, sums_of_plane
from forestbridge.objects.tables import ObjectTable, joined

MICROMETRES = {2: "um2", 3: "um3"}

SAME_SIZE = 1e-3
"""By how much the sides of a pixel may differ, relatively, for lengths in the plane to be given in micrometres."""


@dataclass(frozen=True, eq=False)
class Measured:
    """What is measured: labels, and what lies under them.

    Attributes
    ----------
    labels
        As `open_labelled` gives it.
    image, probabilities
        Of the same size; C are the channels, or the classes.
    channel_names, class_names
        One for each; unique.
    pixel_size
        Micrometres per pixel of z, y, x, as far as known.
    class_name
        Of all objects; None takes the most probable class of each, if there are probabilities.
    """

    labels: Image
    image: Image | None
    probabilities: Image | None
    channel_names: tuple[str, ...]
    class_names: tuple[str, ...]
    pixel_size: Mapping[str, float]
    class_name: str | None


def measure(
    labels: Source,
    image: Source | None = None,
    probabilities: Source | None = None,
    *,
    plane_by_plane: bool = False,
    class_name: str | None = None,
    axes: str | None = None,
) -> ObjectTable:
    """Measure each object of a label image.

    Parameters
    ----------
    labels
        Integers, 0 is no object: a file, an `Image`, or an array (Y, X), (Z, Y, X), (T, Z, Y, X).
    image
        The image under it, any number of channels: a file, an `Image`, or an array (Y, X), (C, Y, X), (C, Z, Y, X). Of a stack, name
        the axes with an `Image`: ``fb.as_image(stack, axes="ZYX")``.
    probabilities
        Of classes, as `predict` writes them: (K, Y, X) or (K, Z, Y, X).
    plane_by_plane
        Whether the planes of a stack are measured one by one. Otherwise an object reaches through the planes that have its number.
        Frames are always apart.
    class_name
        Class of all objects.
    axes
        Of the labels, where the file does not say.

    Returns
    -------
    table
        One row for each object of a frame (and plane, plane by plane), by frame, plane and number.

    Raises
    ------
    ImageError
        If the images cannot be read, have another size than the labels, or the labels are none.
    """
    measured = open_measured(labels, image, probabilities, class_name=class_name, axes=axes)
    return joined(list(measure_units(measured, plane_by_plane=plane_by_plane)))


def open_measured(
    labels: Source,
    image: Source | None = None,
    probabilities: Source | None = None,
    *,
    class_name: str | None = None,
    axes: str | None = None,
) -> Measured:
    """Open what `measure` takes, and check that it belongs together; no pixel is read.

    Raises
    ------
    ImageError
        As `measure`.
    """
    opened = open_labelled(labels, axes=axes)
    others = [None if other is None else _open_other(other, opened) for other in (image, probabilities)]
    for other in others:
        if other is not None:
            check_same_size(opened, other)
    sizes = [dict(i.pixel_size) for i in (opened, *others) if i is not None]
    under, shares = others
    return Measured(
        opened,
        under,
        shares,
        () if under is None else unique_names(under, "channel", first=0),
        () if shares is None else unique_names(shares, "class", first=1),
        next((size for size in sizes if size), {}),
        class_name,
    )


def _open_other(source: Source, labels: Image) -> Image:
    if isinstance(source, Image):
        return source
    if isinstance(source, np.ndarray):
        missing = "" if "C" in labels.axes or source.ndim == len(labels.axes) else "C"
        order = "".join(a for a in "TCZYX" if a in labels.axes + missing)
        return as_image(source, axes=order if len(order) == source.ndim else None)
    return read_image(source)


def unique_names(image: Image, word: str, *, first: int) -> tuple[str, ...]:
    """Return a name for each channel: its own, or "channel 0", "class 1"; repeated ones are numbered."""
    own = image.channel_names or ("",) * image.n_channels
    names: list[str] = []
    for n, name in enumerate(own, first):
        text = " ".join(name.split()) or f"{word} {n}"
        names.append(text if text not in names else f"{text} {n}")
    return tuple(names)


def measure_units(measured: Measured, *, plane_by_plane: bool = False) -> Iterator[ObjectTable]:
    """Yield the objects of each plane, or of each frame where they reach through planes; one plane is in memory at a time."""
    in_3d = "Z" in measured.labels.axes and not plane_by_plane
    for t, planes in units(measured.labels, plane_by_plane=plane_by_plane):
        if in_3d:
            sums = reduce(put_together, (_plane_sums(measured, t, z)[0] for z in planes))
            yield _table(measured, sums, t, None, {})
        else:
            sums, shapes = _plane_sums(measured, t, planes[0], shapes=True)
            yield _table(measured, sums, t, planes[0], shapes)


def _plane_sums(measured: Measured, t: int, z: int, *, shapes: bool = False) -> tuple[Sums, dict[str, NDArray]]:
    """Return the sums of a plane, and what can only be said of whole objects."""
    labels = read_plane(measured.labels, t, z)
    channels, shares = ([] if i is None else list(i.plane(t, z)) for i in (measured.image, measured.probabilities))
    pixels = sorted_pixels(labels)
    sums = sums_of_plane(pixels, z, channels, shares)
    if not shapes:
        return sums, {}
    hull_area, feret = hulls(pixels)
    return sums, {"perimeter": perimeters(labels, pixels), "hull_area": hull_area, "feret": feret}


def _table(measured: Measured, sums: Sums, t: int, z: int | None, shapes: Mapping[str, NDArray]) -> ObjectTable:
    n, dimensions = len(sums.ids), 3 if z is None else 2
    columns: dict[str, NDArray] = {"id": sums.ids}
    if (names := _classes(measured, sums)) is not None:
        columns["class"] = names
    columns["t"] = np.full(n, t)
    if z is not None:
        columns["z"] = np.full(n, z)
    axes, at = ("zyx", [0, 1, 2]) if z is None else ("yx", [1, 2])
    size = measured.pixel_size
    spacing = tuple(size.get(axis, np.nan) for axis in axes)
    known = not np.isnan(spacing).any()
    columns |= _sizes(sums.count, dimensions, float(np.prod(spacing)))
    for unit, scale in (("px", (1.0,) * dimensions), *([("um", spacing)] if known else [])):
        columns |= {f"centroid_{a}_{unit}": sums.centre[:, i] * s for a, i, s in zip(axes, at, scale, strict=True)}
    columns |= {f"bbox_min_{a}_px": sums.first[:, i] for a, i in zip(axes, at, strict=True)}
    columns |= {f"bbox_max_{a}_px": sums.stop[:, i] for a, i in zip(axes, at, strict=True)}
    shape = [measured.labels.sizes[a] for a in "ZYX"]
    columns["at_edge"] = ((sums.first[:, at] == 0) | (sums.stop[:, at] == np.array(shape)[at])).any(axis=1).astype(int)
    columns |= _axes(sums, dimensions, spacing if known else None)
    columns |= _plane_shapes(sums.count, shapes, spacing if known else None)
    for name, values in zip(measured.channel_names, sums.channels, strict=True):
        columns |= _intensity_columns(name, values, sums.count)
    shares = zip(measured.class_names, sums.shares, strict=True)
    return ObjectTable(columns | {f"probability_{name}": values.total / sums.count for name, values in shares})


def _classes(measured: Measured, sums: Sums) -> NDArray | None:
    if measured.class_name is not None:
        return np.full(len(sums.ids), measured.class_name)
    if not sums.shares:
        return None
    best = np.stack([values.total for values in sums.shares]).argmax(axis=0)
    return np.array(measured.class_names)[best]


def _sizes(count: NDArray[np.int64], dimensions: int, pixel: float) -> dict[str, NDArray]:
    """Return the area or volume, and the diameter of the disk or ball of this size; `pixel` is NaN where its size is not known."""
    what = {2: "area", 3: "volume"}[dimensions]
    found: dict[str, NDArray] = {f"{what}_px": count}
    if not np.isnan(pixel):
        found[f"{what}_{MICROMETRES[dimensions]}"] = count * pixel
    for unit, scale in (("px", 1.0), ("um", pixel)):
        if not np.isnan(scale):
            size = count * scale
            diameter = 2 * np.sqrt(size / np.pi) if dimensions == 2 else np.cbrt(6 * size / np.pi)
            found[f"equivalent_diameter_{unit}"] = diameter
    return found


def _axes(sums: Sums, dimensions: int, spacing: Sequence[float] | None) -> dict[str, NDArray]:
    found: dict[str, NDArray] = {}
    names = ("major", "minor") if dimensions == 2 else ("major", "middle", "minor")
    axes = axes_of(sums, dimensions=dimensions)
    for unit, scale in (("px", None), *([("um", spacing)] if spacing else [])):
        z, y, x = [1.0] * (3 - len(scale or ())) + list(scale or ())
        lengths = axes.lengths if scale is None else axes_of(sums, dimensions=dimensions, spacing=(z, y, x)).lengths
        found |= {f"{name}_axis_{unit}": lengths[:, i] for i, name in enumerate(names)}
    if dimensions == 2:
        major, minor = axes.lengths[:, 0], axes.lengths[:, 1]
        with np.errstate(invalid="ignore", divide="ignore"):
            found["eccentricity"] = np.where(major > 0, np.sqrt(1 - (minor / major) ** 2), 0.0)
        found["orientation_rad"] = axes.orientation
    return found


def _plane_shapes(
    count: NDArray[np.int64], shapes: Mapping[str, NDArray], spacing: Sequence[float] | None
) -> dict[str, NDArray]:
    """Return outline length, circularity, solidity and Feret diameter of the objects of a plane."""
    if not shapes:
        return {}
    side = spacing[0] if spacing and abs(spacing[0] - spacing[1]) <= SAME_SIZE * spacing[0] else None
    found = {"perimeter_px": shapes["perimeter"], "feret_max_px": shapes["feret"]}
    if side is not None:
        found |= {"perimeter_um": shapes["perimeter"] * side, "feret_max_um": shapes["feret"] * side}
    with np.errstate(invalid="ignore", divide="ignore"):
        round_ = 4 * np.pi * count / shapes["perimeter"] ** 2
    found["circularity"] = np.where(shapes["perimeter"] > 0, np.minimum(round_, 1.0), np.nan)
    found["solidity"] = count / shapes["hull_area"]
    return found


def _intensity_columns(name: str, values: Intensities, count: NDArray[np.int64]) -> dict[str, NDArray]:
    """Return the columns of a channel, in its grey values."""
    found = {
        "mean": values.total / count,
        "min": values.low,
        "max": values.high,
        "std": np.sqrt(values.squares / count),
    }
    return {f"intensity_{what}_{name}": v for what, v in {**found, "sum": values.total}.items()}
