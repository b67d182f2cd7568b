"""Pieces of probabilities in, one array or file out: what the engine and the package runner do alike at the end of the line."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.image import AXES, ImageShape, ResultInfo, create_result

Kind = Literal["probabilities", "labels", "uncertainty"]
"""probabilities: (K, ...) float32. labels: the painted value of the most probable class, of equal ones the first. uncertainty:
1 - (largest - second largest probability), float32, as ilastik defines it."""

KINDS: tuple[Kind, ...] = ("probabilities", "labels", "uncertainty")


class Classes(NamedTuple):
    """The classes of a result: label values as painted, names, colours "#rrggbb"."""

    values: tuple[int, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...]


class Piece(NamedTuple):
    """The answer for one core: (K, ...) probabilities, or (1, ...) labels or uncertainty; z is None where the core has a z axis."""

    t: int
    z: int | None
    core: tuple[slice, ...]
    answer: NDArray


def assemble(
    pieces: Iterator[Piece],
    image: ImageShape,
    classes: Classes,
    *,
    kind: Kind = "probabilities",
    out: str | Path | None = None,
    overwrite: bool = False,
    provenance: Mapping[str, str] | None = None,
    format: str | None = None,
) -> Any:
    """Put pieces together, in memory or tile by tile into a file.

    Parameters
    ----------
    pieces
        They cover every pixel of the image once.
    image
        What was predicted; the result has its axes, pixel size and frame interval.
    kind
        What is kept of the probabilities.
    out
        File to write; the format follows the suffix, or is `format`. Without it the array is returned.

    Returns
    -------
    result
        The axes of the image, with a class axis C for probabilities: (T, K, Z, Y, X) without the axes that the image does not
        have. With `out` the path.

    Raises
    ------
    ValueError
        If the kind is not known.
    OutputExistsError, ResourceError, ImageError
        If `out` cannot be written.
    """
    if kind not in KINDS:
        raise ValueError(f"expected one of the results {', '.join(KINDS)}, found {kind!r}")
    info = _result_info(image, classes, kind, provenance or {})
    if out is not None:
        with create_result(out, info, overwrite=overwrite, format=format) as writer:
            for piece in pieces:
                region = region_of(piece, info)
                writer.write(region, block_of(piece, info))
        return Path(out)
    result = np.empty(info.shape, info.dtype)
    for piece in pieces:
        result[region_of(piece, info)] = block_of(piece, info)
    return result


def answer_of(probabilities: NDArray[np.float32], kind: Kind, values: tuple[int, ...]) -> NDArray:
    """Return what is kept of the (K, ...) probabilities of a core, as a `Piece` has it; `values` are those of the classes.

    Raises
    ------
    ValueError
        If the kind is not known.
    """
    match kind:
        case "probabilities":
            return probabilities
        case "labels":
            return labels_of(probabilities, values)[None]
        case "uncertainty":
            return uncertainty_of(probabilities)[None]
    raise ValueError(f"expected one of the results {', '.join(KINDS)}, found {kind!r}")


def labels_of(probabilities: NDArray, values: tuple[int, ...]) -> NDArray[np.integer]:
    """Return the label values (...) of the largest of the probabilities (K, ...); of equal ones the first."""
    return np.asarray(values, np.min_scalar_type(max(values)))[probabilities.argmax(axis=0)]


def uncertainty_of(probabilities: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 1 - (largest - second largest) of the probabilities (K, ...), as (...)."""
    if len(probabilities) == 1:
        return np.zeros(probabilities.shape[1:], np.float32)
    second, first = np.partition(probabilities, -2, axis=0)[-2:]
    return 1 - (first - second)


def _result_info(image: ImageShape, classes: Classes, kind: Kind, provenance: Mapping[str, str]) -> ResultInfo:
    sizes = {**image.sizes, "C": len(classes.values)}
    has_axis = set(image.axes) - {"C"} | ({"C"} if kind == "probabilities" else set())
    axes = "".join(a for a in AXES if a in has_axis)
    dtype = np.min_scalar_type(max(classes.values)) if kind == "labels" else np.dtype(np.float32)
    return ResultInfo(
        axes=axes,
        shape=tuple(sizes[a] for a in axes),
        dtype=dtype,
        pixel_size=image.pixel_size,
        frame_interval=image.frame_interval,
        classes=classes.values,
        names=classes.names,
        colours=classes.colours,
        provenance=provenance,
        title=kind,
    )


def region_of(piece: Piece, info: ResultInfo) -> tuple[slice, ...]:
    """Return where a piece lies in the result, one slice per axis."""
    spatial = piece.core if len(piece.core) == 3 else (slice(piece.z, (piece.z or 0) + 1), *piece.core)
    place = {
        "T": slice(piece.t, piece.t + 1),
        "C": slice(0, len(info.classes)),
        **dict(zip("ZYX", spatial, strict=True)),
    }
    return tuple(place[a] for a in info.axes)


def block_of(piece: Piece, info: ResultInfo) -> NDArray:
    """Return what is written for a piece, in the axes of the result."""
    block = piece.answer if len(piece.core) == 3 else piece.answer[:, None]  # (C, y, x) -> (C, 1, y, x)
    full = block[None]  # (1, C, z, y, x)
    return full[tuple(slice(None) if a in info.axes else 0 for a in AXES)]
