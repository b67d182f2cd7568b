"""From pixel positions to cells of a map, the chunks that hold them, and interpolated features; touches no file."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forestbridge.spec import MapSpec
from forestbridge.stores.base import ImageFacts
from forestbridge.tiles import interpolation_cells


def split_points(points: ArrayLike, image: ImageFacts) -> dict[str, NDArray]:
    """Return the t, z, y, x of points, each (N,); t and z as integers.

    Parameters
    ----------
    points
        (N, 2) as (y, x) for images of one plane, or (N, 4) as (t, z, y, x).

    Raises
    ------
    ValueError
        If the array has another shape, a point lies outside the image or between two planes.
    """
    array = np.asarray(points)
    if array.ndim != 2 or array.shape[1] not in (2, 4) or array.dtype.kind not in "iuf":
        raise ValueError(
            f"expected points as numbers (N, 2) in (y, x) or (N, 4) in (t, z, y, x), found {array.dtype} {array.shape}"
        )
    sizes = image.sizes
    if array.shape[1] == 2:
        if sizes["T"] * sizes["Z"] > 1:
            raise ValueError(
                f"expected points as (t, z, y, x) for an image with T={sizes['T']} Z={sizes['Z']}, found (y, x)"
            )
        array = np.concatenate([np.zeros_like(array), array], axis=1)
    limits = np.array([sizes[a] - 1 for a in "TZYX"])
    outside = ~((array >= 0) & (array <= limits)).all(axis=1)  # true for NaN, too
    if outside.any():
        raise ValueError(
            f"expected points inside the image (t, z, y, x) = (0, 0, 0, 0) to {tuple(limits.tolist())}, found "
            f"{int(outside.sum())} outside, the first {tuple(array[outside][0].tolist())}"
        )
    planes = array[:, :2].astype(np.intp)
    if (planes != array[:, :2]).any():
        raise ValueError("expected whole numbers for t and z, found points between two planes")
    return {"t": planes[:, 0], "z": planes[:, 1], "y": array[:, 2], "x": array[:, 3]}


def corners(
    m: MapSpec, axes: str, shape: Sequence[int], where: Mapping[str, NDArray]
) -> tuple[dict[str, NDArray[np.intp]], tuple[NDArray[np.float32], NDArray[np.float32]] | None]:
    """Return the cells around each point, and their weights.

    Parameters
    ----------
    axes, shape
        Of the map's array.
    where
        t, z, y, x of N points in image pixels.

    Returns
    -------
    cells
        Axis → index, (N,) where every point lies on the centre of a cell, otherwise (4·N,): all upper left cells, then
        all upper right, lower left and lower right.
    weights
        None, or (N, 1) of the lower and of the right cells.
    """
    size = dict(zip(axes, shape, strict=True))
    top, bottom, down = interpolation_cells(where["y"], m.stride, m.offset, size["y"])
    left, right, along = interpolation_cells(where["x"], m.stride, m.offset, size["x"])
    if not down.any() and not along.any():
        return {"t": where["t"], "z": where["z"], "y": top, "x": left}, None
    cells = {
        "t": np.tile(where["t"], 4),
        "z": np.tile(where["z"], 4),
        "y": np.concatenate([top, top, bottom, bottom]),
        "x": np.concatenate([left, right, left, right]),
    }
    return cells, (down[:, None], along[:, None])


def distinct(
    cells: Mapping[str, NDArray[np.intp]], axes: str, shape: Sequence[int]
) -> tuple[dict[str, NDArray[np.intp]], NDArray[np.intp]]:
    """Return the cells that differ, and for each of the given ones which of them it is: points of a stroke share cells."""
    own = [a for a in axes if a != "c"]
    size = [n for a, n in zip(axes, shape, strict=True) if a != "c"]
    flat, which = np.unique(np.ravel_multi_index([cells[a] for a in own], size), return_inverse=True)
    return dict(zip(own, np.unravel_index(flat, size), strict=True)), which.ravel()


def interpolate(
    values: NDArray[np.float32], weights: tuple[NDArray[np.float32], NDArray[np.float32]] | None
) -> NDArray[np.float32]:
    """Return (N, F) features from the (N, F) or (4·N, F) values of the cells that `corners` named."""
    if weights is None:
        return values
    down, along = weights
    top_left, top_right, bottom_left, bottom_right = values.reshape(4, len(down), -1)  # (N, F) each
    top = (1 - along) * top_left + along * top_right
    bottom = (1 - along) * bottom_left + along * bottom_right
    return ((1 - down) * top + down * bottom).astype(np.float32, copy=False)


def chunks_of_cells(
    axes: str, shape: Sequence[int], chunks: Sequence[int], cells: Mapping[str, NDArray[np.intp]]
) -> Iterator[tuple[tuple[slice, ...], NDArray[np.intp], tuple[NDArray[np.intp], ...]]]:
    """Group cells by the chunk that holds them.

    Parameters
    ----------
    axes, shape, chunks
        Of the map's array.
    cells
        Axis → (N,) index.

    Yields
    ------
    region
        The chunk, clipped at the array's end: one slice per axis.
    rows
        Which of the N cells lie in it.
    within
        Their places in the region, one array for each axis besides c.
    """
    size = dict(zip(axes, chunks, strict=True))
    length = dict(zip(axes, shape, strict=True))
    own = [a for a in axes if a != "c"]
    index = np.stack([cells[a] // size[a] for a in own], axis=1)  # (N, axes)
    if not len(index):
        return
    unique, inverse = np.unique(index, axis=0, return_inverse=True)
    order = np.argsort(inverse.ravel(), kind="stable")
    ends = np.cumsum(np.bincount(inverse.ravel(), minlength=len(unique)))
    for chunk, rows in zip(unique.tolist(), np.split(order, ends[:-1]), strict=True):
        start = {a: i * size[a] for a, i in zip(own, chunk, strict=True)}
        region = tuple(slice(None) if a == "c" else slice(start[a], min(start[a] + size[a], length[a])) for a in axes)
        yield region, rows, tuple(cells[a][rows] - start[a] for a in own)
