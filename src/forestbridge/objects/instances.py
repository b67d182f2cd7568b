"""Labels or probabilities in, numbered objects out."""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import Classes
from forestbridge.errors import ImageError
from forestbridge.files import check_output
from forestbridge.objects.output import Progress, Spool, label_info, put_together, spool
from forestbridge.objects.segmentation import ClassName, Segmentation, Source, Unit, open_segmentation
from forestbridge.objects.split import Method, Objects, Splitting, split
from forestbridge.objects.track import continued

_logger = logging.getLogger(__name__)

LabelDtype = Literal["uint8", "uint16", "uint32"]
"""Dtypes of label images; each holds as many objects as its largest value."""

DTYPES: tuple[LabelDtype, ...] = ("uint8", "uint16", "uint32")


class ObjectClass(NamedTuple):
    """An object: its number in the label image, and value and name of its class."""

    id: int
    value: int
    name: str


class Instances(NamedTuple):
    """What `instances` returns.

    Attributes
    ----------
    labels
        The label image, 0 and 1 … n; its path where it was written.
    objects
        The objects 1 … n in this order.
    """

    labels: NDArray | Path
    objects: list[ObjectClass]


def instances(
    labels: Source | Segmentation,
    *,
    method: Method = "components",
    classes: Sequence[ClassName] | None = None,
    background: ClassName | None = None,
    connectivity: int | None = None,
    erode: int = 10,
    expand: int = 10,
    h: float | None = None,
    min_distance: float = 0.0,
    plane_by_plane: bool = False,
    track: bool = False,
    dtype: LabelDtype | None = None,
    axes: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> Instances:
    """Number the objects of classes.

    An object is of one class: touching objects of different classes are apart. A volume is worked on as a whole, a time series frame by
    frame; numbers go on from one frame or plane to the next, so that each object of the file has its own.

    Parameters
    ----------
    labels
        Labels or probabilities, see `open_segmentation`; of probabilities the most probable class counts.
    method
        See `Method`; "probability" needs probabilities.
    classes
        Values or names of the classes that become objects; by default all but the background.
    background
        Value or name of the background, see `open_segmentation`.
    connectivity
        How many axes neighbours may differ in: 1 for sides only; by default corners count, too.
    erode, expand
        For "erode": radius of the ball (disk in 2D), and how far what is left grows again, in pixels. It grows beyond the mask where
        `expand` is larger than what was taken, but never into another class.
    h, min_distance
        For the watersheds: how much a hill must rise above the pass to a higher one (1 pixel, or 0.1 of probability), and the smallest
        distance of the tops of two objects that touch, in pixels.
    plane_by_plane
        Whether the planes of volumes are worked on one by one.
    track
        Whether an object keeps the number of the one in the frame before (or the plane before, plane by plane) that overlaps most;
        see `forestbridge.objects.track`.
    dtype
        "uint8", "uint16" or "uint32"; by default the smallest that holds the count.
    axes
        Of arrays, and of files that do not say.
    out, overwrite, format
        File to write, as for `predict`; without it the label image is returned. One unit is in memory at a time.
    progress
        Told after each unit.

    Returns
    -------
    labels, objects
        See `Instances`.

    Raises
    ------
    ImageError, LabelError
        If the source is no segmentation, or has no such class.
    OutputExistsError, ResourceError
        If the output exists or cannot be written.
    ValueError
        If an option is out of range, or the dtype is too small for the count.
    """
    splitting = Splitting(method, connectivity, erode, expand, h, min_distance)
    if dtype is not None and dtype not in DTYPES:
        raise ValueError(f"expected one of {', '.join(DTYPES)}, found {dtype!r}")
    if out is not None:
        check_output(out, overwrite=overwrite)
    found = labels if isinstance(labels, Segmentation) else open_segmentation(labels, axes=axes, background=background)
    chosen = found.chosen(classes)
    check_instances(found, splitting, plane_by_plane=plane_by_plane, track=track)
    units = found.units(plane_by_plane=plane_by_plane)
    with spool(out) as spooled:
        numbering = _Numbering(spooled, track=track)
        for done, unit in enumerate(units, 1):
            numbering.take(unit, _objects_of(found, unit, chosen, splitting))
            if progress:
                progress(done, len(units))
        if numbering.lost:
            _logger.info(
                "%s: %s vanished, being thinner than the erosion; choose a smaller one (--erode) to keep more",
                *(found.image.source, count_text(numbering.lost)),
            )
        n = len(numbering.class_of)
        chosen_dtype = _dtype_for(n, dtype, found.image.source)
        info = label_info(
            found.image,
            dtype=chosen_dtype,
            n_objects=n,
            provenance={**found.provenance, "instances": splitting.text(), "object classes": ", ".join(chosen.names)},
        )
        result = put_together(spooled.units(chosen_dtype), info, out=out, overwrite=overwrite, format=format)
    return Instances(result, _table(numbering.class_of, chosen))


def check_instances(found: Segmentation, splitting: Splitting, *, plane_by_plane: bool, track: bool) -> None:
    """Refuse what cannot be done with a segmentation, before anything is computed.

    Raises
    ------
    ImageError
        If the method needs probabilities and there are labels only.
    ValueError
        If an option is out of range, or there is nothing to track.
    """
    splitting.check(3 if "Z" in found.axes and not plane_by_plane else 2)
    if splitting.method == "probability" and not found.is_probabilities:
        raise ImageError(
            f"{found.image.source}: expected probabilities for the method 'probability', found labels; predict the "
            "probabilities, or choose the method 'distance'"
        )
    if track and plane_by_plane and {"T", "Z"} <= set(found.axes):
        raise ValueError(
            "expected frames or planes to track through, found both with --plane-by-plane; leave one of the two out"
        )
    if track and len(found.units(plane_by_plane=plane_by_plane)) < 2 and not {"T", "Z"} & set(found.axes):
        raise ValueError(f"{found.image.source}: expected a time series for --track, found one frame; leave it out")


def count_text(n: int) -> str:
    """Return "1 object", "2 objects"."""
    return f"{n} object{'' if n == 1 else 's'}"


class _Numbering:
    """Gives the objects of one unit after another their ids, and spools them."""

    def __init__(self, spooled: Spool, *, track: bool) -> None:
        self._spool = spooled
        self._track = track
        self._before: NDArray | None = None
        self.class_of: list[int] = []
        """Class of objects 1, 2, …"""
        self.lost = 0

    def take(self, unit: Unit, objects: Objects) -> None:
        """Number the objects of a unit."""
        n = len(objects.class_of) - 1
        if self._track and self._before is not None:
            ids = continued(self._before, self.class_of, objects.labels, objects.class_of)
        else:
            ids = np.concatenate([[0], len(self.class_of) + np.arange(1, n + 1)])
        new = ids[1:] > len(self.class_of)
        self.class_of += objects.class_of[1:][new].tolist()
        numbered = ids[objects.labels].astype(np.uint32)
        self._spool.put(unit, numbered)
        self._before = numbered if self._track else None
        self.lost += objects.lost


def _objects_of(found: Segmentation, unit: Unit, chosen: Classes, splitting: Splitting) -> Objects:
    if splitting.method != "probability":
        return split(class_numbers(found.labels(unit), chosen.values), splitting)
    probabilities = found.probabilities(unit)
    values = np.asarray(found.classes.values)[probabilities.argmax(axis=0)]
    wanted = [probabilities[found.classes.values.index(v)] for v in chosen.values]
    return split(class_numbers(values, chosen.values), splitting, wanted)


def class_numbers(labels: NDArray[np.integer], values: Sequence[int]) -> NDArray[np.uint8]:
    """Return k for pixels of the k-th value, 0 for all others, as uint8."""
    if labels.dtype == np.uint8:
        table = np.zeros(256, np.uint8)
        for k, value in enumerate(values, 1):
            if value < 256:
                table[value] = k
        return table[labels]
    result = np.zeros(labels.shape, np.uint8)
    for k, value in enumerate(values, 1):
        result[labels == value] = k
    return result


def _dtype_for(n: int, dtype: LabelDtype | None, name: str) -> np.dtype:
    """Return the dtype of a label image of n objects."""
    limits = {d: int(np.iinfo(d).max) for d in DTYPES}
    if dtype is None:
        return np.dtype(next(d for d, most in limits.items() if n <= most))
    if n > limits[dtype]:
        enough = next(d for d, most in limits.items() if n <= most)
        raise ValueError(
            f"{name}: expected at most {limits[dtype]} objects for {dtype}, found {n}; choose {enough}, or leave --dtype out"
        )
    return np.dtype(dtype)


def _table(class_of: Sequence[int], chosen: Classes) -> list[ObjectClass]:
    return [ObjectClass(i, chosen.values[k - 1], chosen.names[k - 1]) for i, k in enumerate(class_of, 1)]
