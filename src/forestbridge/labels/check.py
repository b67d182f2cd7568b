"""Checks of scribbles: do they belong to an image, can a forest be trained on them; and their statistics."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import Any

import numpy as np

from forestbridge.errors import LabelError
from forestbridge.image import Image
from forestbridge.labels.scribbles import Scribbles

MAX_CLASSES = 255
"""More classes than this look like an instance mask, in which every object has a number of its own."""

FEW_PIXELS = 5
"""A class with fewer pixels gives a warning."""

Size = Image | Sequence[int] | Mapping[str, int]
"""An image, or its size: (Y, X), (Z, Y, X), (T, Z, Y, X), or a mapping such as {"T": 5, "Y": 64, "X": 64}."""


def image_grid(size: Size) -> tuple[str, tuple[int, int, int, int]]:
    """Return the axes without C, and (T, Z, Y, X), of an image or of a size.

    Raises
    ------
    ValueError
        If the size is none of the forms of `Size`.
    """
    if isinstance(size, Image):
        sizes, axes = size.sizes, size.axes.replace("C", "")
    elif isinstance(size, Mapping):
        sizes, axes = dict(size), "".join(a for a in "TZYX" if a in size)
        if not {"Y", "X"} <= set(sizes) or set(sizes) - set("TCZYX"):
            raise ValueError(f"expected the size of an image as T, Z, Y and X with Y and X, found {sizes}")
    else:
        if not 2 <= len(size) <= 4:
            raise ValueError(f"expected the size of an image as (Y, X), (Z, Y, X) or (T, Z, Y, X), found {tuple(size)}")
        axes = "TZYX"[4 - len(size) :]
        sizes = dict(zip(axes, size, strict=True))
    t, z, y, x = (int(sizes.get(a, 1)) for a in "TZYX")
    if min(t, z, y, x) < 1:
        raise ValueError(f"expected an image of at least one pixel along each axis, found {sizes}")
    return axes, (t, z, y, x)


def match_to_image(
    scribbles: Scribbles, image: Size, *, plane: int | tuple[int, int] | None = None, name: str | None = None
) -> Scribbles:
    """Return the scribbles with points in the frame of the image.

    Parameters
    ----------
    image
        The image they were painted on, or its size.
    plane
        For labels without z (or frames) on an image with them: the plane, or the frame; (t, z) if both lack.
        Counted from 0.
        Overrides ``scribbles.plane``.
    name
        Of the image, for messages.

    Returns
    -------
    scribbles
        `axes` without C and `shape` are those of the image; `plane` is None.

    Raises
    ------
    LabelError
        If the sizes differ (with the axes in which they would fit, if any), or 2D labels lack their plane.
    """
    axes, shape = image_grid(image)
    what = name or (image.source if isinstance(image, Image) else "the image")
    wanted = dict(zip("TZYX", shape, strict=True))
    found = dict(zip("TZYX", scribbles.shape, strict=True))
    wanted_text = " ".join(f"{a}={wanted[a]}" for a in axes)
    points = scribbles.points.copy()
    if "Q" in scribbles.axes and found["Z"] > 1 and wanted["Z"] == 1 and wanted["T"] > 1:
        found |= {"T": found["Z"], "Z": 1}  # the stack of unknown kind is a time series: the image has no other
        points = points[:, [1, 0, 2, 3]]
    lacking = [a for a in "TZ" if found[a] == 1 and wanted[a] > 1]
    if any(found[a] != wanted[a] for a in "TZYX" if a not in lacking):
        fitting = _fitting_axes(found, wanted)
        hint = (
            f"they fit with other axes: read them with axes={fitting!r} (--label-axes {fitting})"
            if fitting
            else "paint on the image itself or on a copy of its size (`forestbridge labels new` makes an empty one)"
        )
        raise LabelError(
            f"{scribbles.source}: expected labels of the size of {what}, {wanted_text}, found {scribbles.size_text}; "
            f"{hint}"
        )
    place = scribbles.plane if plane is None else plane
    for axis, index in zip(lacking, _plane_indices(scribbles, lacking, place, what, wanted_text), strict=True):
        if not 0 <= index < wanted[axis]:
            raise LabelError(
                f"{scribbles.source}: expected a plane with {axis} from 0 to {wanted[axis] - 1} of {what}, found "
                f"{axis}={index}; give another one"
            )
        points[:, "TZ".index(axis)] = index
    # the order of the points stays: at most one of t and z differed among them
    return replace(scribbles, points=points, axes=axes, shape=shape, plane=None)


def _plane_indices(scribbles: Scribbles, lacking: list[str], place: Any, what: str, wanted_text: str) -> list[int]:
    """Return one index for each lacking axis."""
    if not lacking:
        if place is not None:
            raise LabelError(
                f"{scribbles.source}: expected labels without z or frames beside a plane, found {scribbles.size_text}; "
                "leave the plane out"
            )
        return []
    if place is None:
        raise LabelError(
            f"{scribbles.source}: expected to know on which plane of {what} ({wanted_text}) these labels were painted, "
            f"found labels of {scribbles.size_text}; give the {' and '.join(lacking)} index with --slice (plane= in "
            "Python), counted from 0"
        )
    if isinstance(place, tuple):
        t, z = place
        return [{"T": t, "Z": z}[axis] for axis in lacking]
    if len(lacking) == 2:
        raise LabelError(
            f"{scribbles.source}: expected a plane as (t, z), since {what} has frames and z ({wanted_text}), found "
            f"{place}; give both"
        )
    return [int(place)]


def _fitting_axes(found: dict[str, int], wanted: dict[str, int]) -> str | None:
    """Return axes, in the order of the labels' dimensions, with which they would have the image's size."""
    lengths = [found[a] for a in "TZYX" if found[a] > 1 or a in "YX"]
    letters = [a for a in "TZYX" if wanted[a] > 1 or a in "YX"]
    return next(("".join(p) for p in permutations(letters) if [wanted[a] for a in p] == lengths), None)


def check_scribbles(scribbles: Scribbles | Sequence[Scribbles]) -> list[str]:
    """Check whether a forest can be trained on one or several label sets.

    Parameters
    ----------
    scribbles
        One label set, or those of all training images together: each class is needed once among them.

    Returns
    -------
    warnings
        What should be better: classes with few pixels, labels in one plane of a stack only.

    Raises
    ------
    LabelError
        If nothing is labelled, there is one class only, the labels look like an instance mask, or 255 is
        painted and not named.
    """
    many = [scribbles] if isinstance(scribbles, Scribbles) else list(scribbles)
    source = ", ".join(dict.fromkeys(s.source for s in many))
    counts: dict[int, int] = {}
    for one in many:
        for value, n in one.counts.items():
            counts[value] = counts.get(value, 0) + n
    names = {value: name for one in reversed(many) for value, name in one.names.items()}
    classes = sorted(counts)
    if not classes:
        raise LabelError(
            f"{source}: expected painted pixels, found nothing labelled: all pixels are 0; paint a few strokes of each "
            "class and save again"
        )
    if len(classes) > MAX_CLASSES:
        raise LabelError(
            f"{source}: expected at most {MAX_CLASSES} classes, found {len(classes)}; this looks like an instance "
            "mask, in which each object has its own number: give every object of a kind the same number"
        )
    if len(classes) > 1 and classes[-1] == 255 and classes[-2] < 254 and names[255] == "class 255":
        raise LabelError(
            f"{source}: expected class numbers 1, 2, …, found also 255 on {counts[255]} pixels, which often means "
            "'ignore'; leave it out with --ignore 255 or ignore=255, or give each class a name to train on it"
        )
    if len(classes) == 1:
        raise LabelError(
            f"{source}: expected at least two classes, found only {names[classes[0]]!r} (value {classes[0]}); add a "
            "second class, for example some background: a forest of one class answers that class everywhere"
        )
    warnings = [
        f"{source}: {names[value]!r} (value {value}) has only {counts[value]} labelled pixels; paint more of it"
        for value in classes
        if counts[value] < FEW_PIXELS
    ]
    for one in many:
        n_planes = one.shape[0] * one.shape[1]
        if n_planes > 1 and len(one.planes) == 1:
            t, z = one.planes[0]
            warnings.append(
                f"{one.source}: only one of {n_planes} planes has labels (t={t} z={z}); label a few others too, so "
                "that the forest sees how they differ"
            )
    return warnings


def scribble_stats(scribbles: Scribbles) -> dict[str, Any]:
    """Return what a label set contains, as JSON values.

    Returns
    -------
    stats
        "source", "size" (per axis), "classes" (value, name, colour, pixels, planes of each), "pixels" in all,
        "fraction" of the whole image, "planes" (t, z, pixels of each plane with labels), "warnings", and "refused": why
        no forest can be trained on it, or None.
    """
    counts, planes = scribbles.counts, scribbles.plane_counts
    planes_of = {
        value: replace(scribbles, points=scribbles.points[scribbles.values == value]).planes for value in counts
    }
    classes = [
        {
            "value": value,
            "name": scribbles.names[value],
            "colour": scribbles.colours[value],
            "pixels": n,
            "planes": len(planes_of[value]),
        }
        for value, n in counts.items()
    ]
    warnings, refused = [], None
    try:
        warnings = check_scribbles(scribbles)
    except LabelError as error:
        refused = str(error)
    return {
        "source": scribbles.source,
        "size": {a: dict(zip("TZYX", scribbles.shape, strict=True))["Z" if a == "Q" else a] for a in scribbles.axes},
        "classes": classes,
        "pixels": len(scribbles.values),
        "fraction": len(scribbles.values) / float(np.prod(scribbles.shape, dtype=np.float64)),
        "planes": [{"t": t, "z": z, "pixels": n} for (t, z), n in planes.items()],
        "warnings": warnings,
        "refused": refused,
    }
