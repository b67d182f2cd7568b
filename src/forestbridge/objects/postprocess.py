"""Labels or probabilities in, cleaner labels out: smooth borders, no specks, no holes; into a new result or into an older one."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forestbridge.assemble import Classes
from forestbridge.errors import LabelError
from forestbridge.files import check_output
from forestbridge.image import label_dtype
from forestbridge.objects.agreement import check_same_size
from forestbridge.objects.output import Progress, label_info, put_together
from forestbridge.objects.sam import Sam
from forestbridge.objects.segmentation import ClassName, Segmentation, Source, Unit, open_segmentation

Mode = Literal["replace", "add"]
"""replace: the result takes the place of what was there. add: it is laid over it, objects only."""

MODES: tuple[Mode, ...] = ("replace", "add")


@dataclass(frozen=True)
class Cleaning:
    """What is done, in this order: majority filter, smoothing, sizes, holes.

    Attributes
    ----------
    smooth
        Iterations of mean curvature smoothing; 0 for none.
    min_area, max_area
        Sizes of regions that stay, see `forestbridge.objects.clean.area_of`; None for all.
    fill_holes
        Whether holes are filled; `max_hole` leaves larger ones.
    majority
        Radius of the majority filter in pixels; 0 for none.
    """

    smooth: int = 25
    min_area: str | float | None = 50
    max_area: str | float | None = None
    fill_holes: bool = False
    max_hole: str | float | None = None
    majority: int = 0

    def check(self) -> None:
        """Refuse what cannot be.

        Raises
        ------
        ValueError
            If a number is below 0, or a size is not written as one.
        """
        from forestbridge.objects.clean import area_of

        for name in ("smooth", "majority"):
            if getattr(self, name) < 0:
                raise ValueError(f"expected {name} of 0 or more, found {getattr(self, name)}; 0 leaves it out")
        for size in (self.min_area, self.max_area, self.max_hole):
            if size is not None:
                area_of(size)
        if self.max_hole is not None and not self.fill_holes:
            raise ValueError(
                "expected max_hole together with fill_holes (--fill-holes), found it alone; add it or leave both out"
            )

    def text(self) -> str:
        """Return what is done, for provenance."""
        done = [f"majority={self.majority}"] if self.majority else []
        done += [f"smooth={self.smooth}"] if self.smooth else []
        done += [f"min_area={self.min_area}"] if self.min_area else []
        done += [f"max_area={self.max_area}"] if self.max_area is not None else []
        if self.fill_holes:
            done.append("fill_holes" if self.max_hole is None else f"fill_holes={self.max_hole}")
        return " ".join(done) or "nothing"

    def clean(self, classes: NDArray[np.uint8], pixel_size: dict[str, float], name: str) -> NDArray[np.uint8]:
        """Return cleaner classes of a unit, see `forestbridge.objects.clean`."""
        from forestbridge.objects.clean import area_of, filled, majority, sized, smoothed

        if self.majority:
            classes = majority(classes, self.majority)
        if self.smooth:
            classes = smoothed(classes, self.smooth)
        smallest = area_of(self.min_area) if self.min_area else None
        largest = area_of(self.max_area) if self.max_area is not None else None
        if smallest or largest:
            classes = sized(classes, smallest, largest, pixel_size, name)
        if self.fill_holes:
            classes = filled(classes, area_of(self.max_hole) if self.max_hole is not None else None, pixel_size, name)
        return classes


def postprocess(
    labels: Source | Segmentation,
    *,
    smooth: int = 25,
    min_area: str | float | None = 50,
    max_area: str | float | None = None,
    fill_holes: bool = False,
    max_hole: str | float | None = None,
    majority: int = 0,
    classes: Sequence[ClassName] | None = None,
    background: ClassName | None = None,
    plane_by_plane: bool = False,
    mode: Mode = "replace",
    into: Source | Segmentation | None = None,
    preserve: bool = False,
    slices: Sequence[int] | None = None,
    sam: Sam | None = None,
    axes: str | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
    format: str | None = None,
    progress: Progress | None = None,
) -> NDArray | Path:
    """Clean labels: smooth borders, drop regions by their size, fill holes.

    Values stay as painted. A pixel that is taken from a class becomes background; classes grow into background and into each other only,
    never into classes that are not chosen.

    Parameters
    ----------
    labels
        Labels or probabilities, see `open_segmentation`; of probabilities the most probable class counts.
    smooth
        Iterations of mean curvature smoothing, plane by plane; 0 leaves it out.
    min_area, max_area
        Sizes of regions that stay: 50 (pixels), "2%" (of the largest region of the class in the unit), "10um2", in volumes "10um3".
    fill_holes, max_hole
        Whether to fill background that a class encloses, up to a size.
    majority
        Radius of a majority filter before all else; 0 leaves it out.
    classes
        Values or names of the classes to clean; by default all but the background.
    background
        Value or name, see `open_segmentation`.
    plane_by_plane
        Whether regions and holes of volumes are those of planes.
    mode
        "replace", or "add": laid over `into`, where only objects count: the new value wins where it is no background, or the old one is.
    into
        An older result of this size, which keeps the slices that are not worked on.
    preserve
        With "add": objects of the older result stay as they are.
    slices
        Planes to work on, from 0 (frames, where there are no planes), each on its own; the others stay as in `into`, or as they are.
    sam
        A Segment Anything model that refines what is left in the end, see `forestbridge.objects.sam.open_sam`.
    axes
        Of arrays, and of files that do not say.
    out, overwrite, format, progress
        As for `instances`.

    Returns
    -------
    labels
        The label image, of the smallest dtype that holds the classes. With `out` its path.

    Raises
    ------
    ImageError, LabelError
        If the source is no segmentation, has no such class, or `into` is of another size.
    OutputExistsError, ResourceError
        If the output exists or cannot be written.
    ValueError
        If an option is out of range, or belongs to another one that is missing.
    """
    cleaning = Cleaning(smooth, min_area, max_area, fill_holes, max_hole, majority)
    cleaning.check()
    if out is not None:
        check_output(out, overwrite=overwrite)
    found = labels if isinstance(labels, Segmentation) else open_segmentation(labels, axes=axes, background=background)
    older = into if into is None or isinstance(into, Segmentation) else open_segmentation(into, axes=axes)
    check_merge(found, older, mode, slices, preserve=preserve)
    if sam is not None:
        check_same_size(sam.image, found.image)
    job = _Job(found, found.chosen(classes), older, cleaning, mode, preserve, sam)
    units = found.units(plane_by_plane=plane_by_plane or (slices is not None and "Z" in found.axes))

    def cleaned() -> Iterator[tuple[Unit, NDArray]]:
        for done, unit in enumerate(units, 1):
            number = unit.t if unit.z is None else unit.z
            yield unit, job.older_or_own(unit) if slices is not None and number not in slices else job.result(unit)
            if progress:
                progress(done, len(units))

    info = label_info(
        found.image,
        dtype=label_dtype([*job.classes.values, found.background]),
        classes=job.classes,
        provenance={**found.provenance, "postprocess": cleaning.text() + (f" sam={sam.prompts}" if sam else "")},
    )
    return put_together(cleaned(), info, out=out, overwrite=overwrite, format=format)


def check_merge(
    found: Segmentation, older: Segmentation | None, mode: str, slices: Sequence[int] | None, *, preserve: bool
) -> None:
    """Refuse a merge that cannot be, before anything is computed.

    Raises
    ------
    ValueError
        If the mode is not known, options lack the one that they belong to, or there is no such slice.
    ImageError, LabelError
        If the older result is of another size, or has other classes.
    """
    if mode not in MODES:
        raise ValueError(f"expected one of the modes {', '.join(MODES)}, found {mode!r}")
    if mode == "add" and older is None:
        raise ValueError("expected an older result to add to, found none; give it with --into (into=)")
    if preserve and mode != "add":
        raise ValueError(f"expected preserve with the mode 'add', found {mode!r}; choose --mode add")
    if older is not None:
        check_same_size(found.image, older.image)
        _check_same_classes(found, older)
    if slices is not None:
        axis = "Z" if "Z" in found.axes else "T"
        n = found.image.sizes[axis]
        if not slices or (bad := [s for s in slices if not 0 <= s < n]):
            raise ValueError(
                f"{found.image.source}: expected slices from 0 to {n - 1}, found {bad if slices else 'none'}; count from 0"
            )


def _check_same_classes(found: Segmentation, older: Segmentation) -> None:
    """Refuse results in which one value has two names; the names made from values say nothing."""
    names, others = ({v: n for v, n in zip(*s.classes[:2], strict=True) if n != f"class {v}"} for s in (found, older))
    if different := [v for v in names if others.get(v, names[v]) != names[v]]:
        v = different[0]
        raise LabelError(
            f"{older.image.source}: expected the classes of {found.image.source} to merge with, where {v} is {names[v]!r}, found {v} as "
            f"{others[v]!r}; merge results of one set of classes"
        )


@dataclass(frozen=True)
class _Job:
    """What is worked on, and what it is merged with."""

    found: Segmentation
    chosen: Classes
    older: Segmentation | None
    cleaning: Cleaning
    mode: Mode
    preserve: bool
    sam: Sam | None

    @property
    def classes(self) -> Classes:
        """The classes of the result: those of the segmentation, and those that the older one has besides."""
        tables = [self.found.classes, *([self.older.classes] if self.older is not None else [])]
        table = {v: (n, c) for t in reversed(tables) for v, n, c in zip(*t, strict=True)}
        values = tuple(sorted(table))
        return Classes(values, tuple(table[v][0] for v in values), tuple(table[v][1] for v in values))

    def older_or_own(self, unit: Unit) -> NDArray:
        """Return a unit that is not worked on."""
        return (self.found if self.older is None else self.older).labels(unit)

    def result(self, unit: Unit) -> NDArray:
        """Return a unit of the result."""
        new = self._cleaned(unit)
        if self.mode == "replace" or self.older is None:
            return new
        old = self.older.labels(unit)
        old_is_empty = (old == 0) | (old == self.older.background)
        new_is_object = (new != 0) & (new != self.found.background)
        return np.where(old_is_empty if self.preserve else old_is_empty | new_is_object, new, old)

    def _cleaned(self, unit: Unit) -> NDArray:
        from forestbridge.objects.clean import OTHER

        labels, image = self.found.labels(unit), self.found.image
        classes = numbers_of(labels, self.chosen.values, self.found.background, OTHER)
        cleaned = self.cleaning.clean(classes, dict(image.pixel_size), image.source)
        if self.sam is not None:
            cleaned = self.sam.refine(cleaned, unit, OTHER)
        values = np.array([self.found.background, *self.chosen.values])
        stays = (cleaned == OTHER) | ((cleaned == 0) & (classes == 0))
        return np.where(stays, labels, values[np.where(stays, 0, cleaned)])


def numbers_of(labels: NDArray, values: Sequence[int], background: int, other: int) -> NDArray[np.uint8]:
    """Return k for pixels of the k-th value, 0 for background and 0, `other` for the rest, as uint8.

    Raises
    ------
    LabelError
        If there are too many values.
    """
    if len(values) >= other:
        raise LabelError(f"expected fewer than {other} classes to clean, found {len(values)}; choose some with --class")
    result = np.full(labels.shape, other, np.uint8)
    result[(labels == background) | (labels == 0)] = 0
    for k, value in enumerate(values, 1):
        result[labels == value] = k
    return result
