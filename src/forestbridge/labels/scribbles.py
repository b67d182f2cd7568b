"""`Scribbles`: the painted pixels of an image as a list of points, and how they are taken out of a label array."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import LabelError
from forestbridge.image.image import LazyArray
from forestbridge.labels.names import Names, class_colours, class_names

LABEL_AXES = "TZYX"
"""The axes a label image may have, in this order; "Q" is a stack of unknown kind, counted as Z until matched."""

MAX_LABEL = 2**32 - 1
"""Largest label value: results are written as uint8, uint16 or uint32."""

MAX_PIXELS = 50_000_000
"""Largest number of labelled pixels; a point takes 40 bytes."""

BLOCK_BYTES = 2**26
"""Label images are read in blocks of rows of about this size."""


@dataclass(frozen=True, eq=False)
class Scribbles:
    """The labelled pixels of one image.

    Attributes
    ----------
    points
        (N, 4) int64: (t, z, y, x) of each labelled pixel, ascending, each pixel once.
    values
        (N,) int64: the label value painted there, ≥ 1.
    axes
        Axes of the label image: a subset of "TZYX" in this order, or "QYX" for a stack whose kind the file does
        not tell.
    shape
        (T, Z, Y, X) of the label image, 1 for an axis it does not have.
    names, colours
        Name, and colour as "#rrggbb", of each value; at least of the painted ones.
    source
        File names, for messages.
    plane
        Where 2D labels lie in a stack; until `forestbridge.labels.match_to_image` their points have t = z = 0.
    """

    points: NDArray[np.int64]
    values: NDArray[np.int64]
    axes: str
    shape: tuple[int, int, int, int]
    names: Mapping[int, str]
    colours: Mapping[int, str]
    source: str = "array"
    plane: int | tuple[int, int] | None = None

    @property
    def classes(self) -> tuple[int, ...]:
        """The painted values, ascending."""
        return tuple(self.counts)

    @property
    def counts(self) -> dict[int, int]:
        """Number of pixels of each painted value, ascending."""
        return tally(self.values)

    @property
    def plane_counts(self) -> dict[tuple[int, int], int]:
        """Number of labelled pixels of each (t, z) that has any, ascending."""
        planes = self.shape[1]
        return {divmod(p, planes): n for p, n in tally(self.points[:, 0] * planes + self.points[:, 1]).items()}

    @property
    def planes(self) -> list[tuple[int, int]]:
        """The (t, z) that have labels, ascending."""
        return list(self.plane_counts)

    @property
    def size_text(self) -> str:
        """The size for messages: "Z=8 Y=256 X=256"."""
        sizes = dict(zip("TZYX", self.shape, strict=True))
        return " ".join(f"{a}={sizes['Z' if a == 'Q' else a]}" for a in self.axes)

    def at_plane(self, t: int = 0, z: int = 0) -> NDArray:
        """Return one plane as (Y, X) labels in the smallest unsigned dtype that holds all values; 0 is unlabelled."""
        dtype = np.min_scalar_type(int(self.values.max(initial=0)))
        plane = np.zeros(self.shape[2:], dtype)
        here = (self.points[:, 0] == t) & (self.points[:, 1] == z)
        plane[self.points[here, 2], self.points[here, 3]] = self.values[here]
        return plane

    def __repr__(self) -> str:
        return f"<Scribbles {self.source}: {self.size_text}, {len(self.values)} pixels of classes {list(self.classes)}>"


def tally(values: NDArray[np.int64]) -> dict[int, int]:
    """Return how often each value occurs, ascending; np.unique sorts, and takes ten times as long."""
    if values.size and int(values.max()) < 2**20:
        counts = np.bincount(values)
        return {int(v): int(counts[v]) for v in np.flatnonzero(counts)}
    found, counts = np.unique(values, return_counts=True)
    return {int(v): int(n) for v, n in zip(found, counts, strict=True)}


def as_scribbles(
    array: LazyArray | NDArray,
    *,
    axes: str | None = None,
    names: Names | None = None,
    colours: Names | None = None,
    ignore: int | Collection[int] | None = None,
    plane: int | tuple[int, int] | None = None,
    source: str = "array",
) -> Scribbles:
    """Take the labelled pixels out of a label image.

    Parameters
    ----------
    array
        Integers (or whole numbers as floats, or bool), 0 = unlabelled, k = class k. (Y, X); (Z, Y, X), or frames where
        the image has frames and no z; (T, Z, Y, X); or with the axes named by `axes`. Read in blocks, never whole.
    axes
        Different letters of "TZYX", one per dimension and in any order; "C" is allowed for an axis of length 1.
    names, colours
        One for each painted value in ascending order, or a mapping from values. Missing colours come from
        `DEFAULT_COLOURS`.
    ignore
        Values that count as unlabelled, such as 255.
    plane
        Where 2D labels lie in a stack.
    source
        Name for messages.

    Raises
    ------
    LabelError
        If the array is no label image: fractions, NaN, negative or too large values, colours instead of
        classes, wrong axes or names.
    """
    axes = _check_axes(array, axes, source)
    points, values = _collect(array, axes, _ignored(ignore), source)
    sizes = dict(zip(axes, array.shape, strict=True))
    own = "".join(a for a in "QTZYX" if a in axes)
    shape = (sizes.get("T", 1), sizes.get("Z", sizes.get("Q", 1)), sizes["Y"], sizes["X"])
    painted = tuple(tally(values))
    return Scribbles(
        points,
        values,
        own,
        shape,
        class_names(painted, names, source),
        class_colours(painted, colours, source),
        source,
        plane,
    )


def _check_axes(array: LazyArray | NDArray, axes: str | None, source: str) -> str:
    """Return one letter per dimension: of TZYX, "Q" for a stack of unknown kind, "C" for an axis of length 1."""
    shape, dtype = tuple(array.shape), np.dtype(array.dtype)
    if dtype.kind not in "buif":
        raise LabelError(f"{source}: expected an image of integers, found {dtype}; save the labels as integers")
    if axes is None:
        if len(shape) == 3 and shape[-1] in (3, 4) and shape[0] > 4:
            raise LabelError(
                f"{source}: expected one integer per pixel, found {shape}, which looks like colours (RGB); paint class "
                "numbers into one plane, or name the axes with axes= if the last one is no colour"
            )
        known = {2: "YX", 3: "QYX", 4: "TZYX"}
        if len(shape) not in known:
            raise LabelError(
                f"{source}: expected labels with 2, 3 or 4 dimensions, found {shape}; name the axes with axes='ZYX' or "
                "the like"
            )
        axes = known[len(shape)]
    axes = axes.upper()
    if "S" in axes and len(axes) == len(shape):
        raise LabelError(
            f"{source}: expected one integer per pixel, found colours (RGB) of the shape {shape}; paint class numbers "
            "into one plane"
        )
    if (
        len(axes) != len(shape)
        or len(set(axes)) != len(axes)
        or set(axes) - set("QCTZYX")
        or not {"Y", "X"} <= set(axes)
        or {"Q", "Z"} <= set(axes)
    ):
        raise LabelError(
            f"{source}: expected axes as different letters of {LABEL_AXES} with Y and X, one for each dimension of "
            f"{shape}, found {axes!r}"
        )
    if "C" in axes and (n := shape[axes.index("C")]) > 1:
        raise LabelError(
            f"{source}: expected one integer per pixel, found {n} channels; paint class numbers into one plane, or "
            "save one channel"
        )
    if 0 in shape:
        raise LabelError(
            f"{source}: expected at least one pixel along each axis, found {shape}; check how the file was written"
        )
    return axes


def _collect(
    array: LazyArray | NDArray, axes: str, ignored: frozenset[int], source: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the points and values of all pixels that are not 0 and not ignored."""
    points, values, n = [np.zeros((0, 4), np.int64)], [np.zeros(0, np.int64)], 0
    fractions, first = 0, ""
    for (t, z, start), block in _blocks(array, axes):
        y, x = np.nonzero(block)
        painted = block[y, x]
        if painted.dtype.kind == "f":
            bad = ~np.isfinite(painted) | (painted != np.rint(painted))
            if bad.any() and not first:
                i = int(np.argmax(bad))
                first = f"{painted[i]} at t={t} z={z} y={y[i] + start} x={x[i]}"
            fractions += int(bad.sum())
            painted, y, x = painted[~bad], y[~bad], x[~bad]
        if painted.size and int(painted.max()) > MAX_LABEL:
            raise LabelError(
                f"{source}: expected label values up to {MAX_LABEL}, found {painted.max()}; number the classes 1, 2, …"
            )
        integers = painted.astype(np.int64)
        if ignored:
            keep = ~np.isin(integers, list(ignored))
            integers, y, x = integers[keep], y[keep], x[keep]
        values.append(integers)
        points.append(
            np.stack([np.full_like(y, t), np.full_like(y, z), y + start, x], axis=1).astype(np.int64)
        )  # (n, 4)
        n += len(integers)
        if n > MAX_PIXELS:
            raise LabelError(
                f"{source}: expected at most {MAX_PIXELS} labelled pixels, found more; label less of the image, or "
                "crop it"
            )
    if fractions:
        raise LabelError(
            f"{source}: expected whole numbers, found {fractions} pixels with fractions or NaN, the first {first}; "
            "convert the labels to integers (intensities and probabilities are no labels)"
        )
    flat = np.concatenate(values)
    if flat.size and flat.min() < 0:
        negative = np.unique(flat[flat < 0])
        raise LabelError(
            f"{source}: expected labels ≥ 0, found the negative values {negative[:10].tolist()} on "
            f"{int((flat < 0).sum())} pixels; set them to 0, or leave them out with "
            f"ignore={int(negative[0])} (--ignore {int(negative[0])})"
        )
    return np.concatenate(points), flat


def _blocks(array: LazyArray | NDArray, axes: str) -> Iterator[tuple[tuple[int, int, int], NDArray]]:
    """Yield (t, z, first row) and (rows, X) of blocks that cover the label image, in order."""
    sizes = dict(zip(axes, array.shape, strict=True))
    stack = "Q" if "Q" in axes else "Z"
    rows = max(1, BLOCK_BYTES // (sizes["X"] * np.dtype(array.dtype).itemsize))
    for t in range(sizes.get("T", 1)):
        for z in range(sizes.get(stack, 1)):
            for start in range(0, sizes["Y"], rows):
                wanted = {
                    "T": slice(t, t + 1),
                    stack: slice(z, z + 1),
                    "C": slice(0, 1),
                    "Y": slice(start, start + rows),
                    "X": slice(None),
                }
                block = np.asarray(array[tuple(wanted[a] for a in axes)])
                order = [axes.index(a) for a in "YX"]
                rest = [i for i in range(len(axes)) if i not in order]
                # every other axis has length 1 here
                yield (t, z, start), block.transpose(rest + order).reshape(block.shape[order[0]], block.shape[order[1]])


def _ignored(ignore: int | Collection[int] | None) -> frozenset[int]:
    if ignore is None:
        return frozenset()
    return frozenset(
        int(v) for v in np.atleast_1d(np.asarray(list(ignore) if isinstance(ignore, Collection) else ignore))
    )
