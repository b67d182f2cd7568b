"""Several label sets of one image into one: which value counts for a pixel, and which name for a value."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import LabelError
from forestbridge.labels.names import Names, class_names, replaced_colours
from forestbridge.labels.scribbles import Scribbles

Merge = Literal["refuse", "first", "last"]
"""What counts where two sources label a pixel differently."""


def combine(
    parts: Sequence[tuple[NDArray[np.int64], NDArray[np.int64]]], shape: Sequence[int], merge: Merge, source: str
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Lay several sets of labelled pixels over each other: a later one fills what the earlier ones leave unlabelled.

    Parameters
    ----------
    parts
        (N, 4) points and (N,) values of each; a pixel may occur more than once.
    shape
        (T, Z, Y, X).
    merge
        Where values differ: "refuse", or keep the one of the "first" or of the "last" part.

    Returns
    -------
    points, values
        Ascending, each pixel once.

    Raises
    ------
    LabelError
        With merge="refuse", if a pixel has two values; with their number and the first place.
    """
    if merge not in ("refuse", "first", "last"):
        raise ValueError(f"expected merge as 'refuse', 'first' or 'last', found {merge!r}")
    points = np.concatenate([p for p, _ in parts]) if parts else np.zeros((0, 4), np.int64)
    values = np.concatenate([v for _, v in parts]) if parts else np.zeros(0, np.int64)
    keys = np.ravel_multi_index(tuple(points.T), tuple(shape))
    order = np.argsort(keys, kind="stable")  # stable: among equal pixels the parts keep their order
    keys, points, values = keys[order], points[order], values[order]
    again = keys[1:] == keys[:-1]
    differing = np.flatnonzero(again & (values[1:] != values[:-1]))
    if differing.size and merge == "refuse":
        t, z, y, x = points[differing[0]].tolist()
        a, b = values[differing[0]], values[differing[0] + 1]
        count = len(np.unique(keys[differing]))
        raise LabelError(
            f"{source}: expected one class for each pixel, found {count} pixels with two, the first at t={t} z={z} "
            f"y={y} x={x} (classes {a} and {b}); erase one of them, or say which counts with merge='last' or "
            "merge='first' (--merge last, --merge first)"
        )
    keep = np.ones(len(keys), bool)
    if merge == "last":
        keep[:-1] = ~again
    else:
        keep[1:] = ~again
    return points[keep], values[keep]


def merge_scribbles(parts: Sequence[Scribbles], *, merge: Merge = "refuse") -> Scribbles:
    """Merge several label sets of one image into one.

    A later set fills what the earlier ones leave unlabelled; `merge` says what counts where they differ.

    Raises
    ------
    LabelError
        If their sizes, planes, or the names of a value differ, or, with merge="refuse", if a pixel has two classes.
    """
    first, source = parts[0], ", ".join(dict.fromkeys(s.source for s in parts))
    for other in parts[1:]:
        if other.shape != first.shape or other.plane != first.plane:
            raise LabelError(
                f"expected label sets of one size, found {first.size_text} in {first.source} and {other.size_text} in "
                f"{other.source}; give only label sets of the same image and plane together"
            )
    if len(parts) == 1:
        return first
    points, values = combine([(s.points, s.values) for s in parts], first.shape, merge, source)
    names, colours = common_names(parts), {v: c for s in reversed(parts) for v, c in s.colours.items()}
    axes = next((s.axes for s in parts if "Q" not in s.axes), first.axes)
    return Scribbles(points, values, axes, first.shape, names, colours, source, first.plane)


def common_names(parts: Sequence[Scribbles]) -> dict[int, str]:
    """Return value → name over several label sets; a real name counts more than "class k".

    Raises
    ------
    LabelError
        If a value has two names, or a name two values: such sets cannot train one forest.
    """
    names: dict[int, str] = {}
    owner: dict[int, str] = {}
    for part in parts:
        for value, name in part.names.items():
            known = names.get(value)
            if known is None or known == f"class {value}":
                names[value], owner[value] = name, part.source
            elif name not in (known, f"class {value}"):
                raise LabelError(
                    f"expected one name for class {value}, found {known!r} in {owner[value]} and {name!r} in "
                    f"{part.source}; give the names of all classes yourself, in the order of their values"
                )
    by_name: dict[str, int] = {}
    for value, name in names.items():
        if name in by_name:
            raise LabelError(
                f"expected one value for class {name!r}, found {by_name[name]} in {owner[by_name[name]]} and {value} "
                f"in {owner[value]}; give the names of all classes yourself, in the order of their values"
            )
        by_name[name] = value
    return dict(sorted(names.items()))


def share_names(
    parts: Sequence[Scribbles], *, names: Names | None = None, colours: Names | None = None
) -> list[Scribbles]:
    """Give the label sets of several images the same names and colours, so that they train one forest.

    Parameters
    ----------
    names, colours
        One for each value that is painted in any of them, in ascending order, or a mapping from values; by default
        those that the label sets have.

    Raises
    ------
    LabelError
        If the names do not fit, or those of the label sets contradict each other.
    """
    painted = sorted({value for s in parts for value in s.classes})
    source = ", ".join(dict.fromkeys(s.source for s in parts))
    shared = common_names(parts) if names is None else class_names(painted, names, source)
    tints = {value: colour for s in reversed(parts) for value, colour in s.colours.items()}
    tints = replaced_colours(tints, colours, painted, source)
    return [replace(s, names=shared, colours=tints) for s in parts]
