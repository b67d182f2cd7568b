"""A result as HDF5, as ilastik exports and reads it: one dataset with axistags, channels last, in packed chunks."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.image.axistags import tags_of_axes
from forestbridge.image.chunks import ChunkedTarget
from forestbridge.image.result_info import ResultInfo

DATASET = "exported_data"
"""ilastik's name of an exported dataset."""

ILASTIK_AXES = "tzyxc"

CHUNK = 512
"""Longest side of a chunk in pixels; a chunk holds one plane of one channel."""


def create_hdf5(path: Path, info: ResultInfo) -> ChunkedTarget:
    """Make an HDF5 file with one dataset: the result's axes, the channels last, with a channel for labels too, as ilastik writes them."""
    axes = "".join(a for a in ILASTIK_AXES if a == "c" or a.upper() in info.axes)
    sizes = {a.lower(): n for a, n in info.sizes.items()}
    shape = tuple(sizes.get(a, 1) for a in axes)
    order = tuple(info.axes.index(a.upper()) if a.upper() in info.axes else None for a in axes)
    attributes = hdf5_attributes(axes, info.pixel_size, info.limits)
    attributes["forestbridge"] = json.dumps(info.facts(), ensure_ascii=False)
    return create_dataset(path, DATASET, axes, shape, info.dtype, attributes=attributes, order=order)


def create_dataset(
    path: Path,
    dataset: str,
    axes: str,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    attributes: Mapping[str, Any],
    order: tuple[int | None, ...] | None = None,
    packed: bool = True,
) -> ChunkedTarget:
    """Make a dataset in an HDF5 file, which may hold others; one of this name is replaced.

    Parameters
    ----------
    dataset
        Its name, possibly with groups: "volume/data".
    axes, shape
        Of the dataset, such as "tzyxc".
    order
        As in `ChunkedTarget`; by default blocks come in the axes of the dataset.
    packed
        Whether chunks are packed (gzip).
    """
    import h5py

    chunks = tuple(min(n, CHUNK) if a in "yx" else 1 for a, n in zip(axes, shape, strict=True))
    options: dict[str, Any] = {"compression": "gzip", "compression_opts": 1} if packed else {}
    with h5py.File(path, "a") as file:
        if dataset in file:
            del file[dataset]
        made = file.create_dataset(dataset, shape=shape, dtype=dtype, chunks=chunks, **options)
        for key, value in attributes.items():
            made.attrs[key] = value

    def store(place: tuple[slice, ...], chunk: NDArray) -> None:
        # The file is open for this call only: after an error nothing stays open.
        with h5py.File(path, "r+") as file:
            made = file[dataset]
            assert isinstance(made, h5py.Dataset)
            made[place] = chunk

    return ChunkedTarget(shape, chunks, dtype, order or tuple(range(len(axes))), store)


def hdf5_attributes(axes: str, pixel_size: Mapping[str, float], limits: tuple[float, float] | None) -> dict[str, Any]:
    """Return what stands beside a dataset: what ilastik reads, and Fiji's pixel size."""
    known = {a: size for a, size in pixel_size.items() if a in axes}
    attributes: dict[str, Any] = {
        "axistags": tags_of_axes(axes, known),
        "DIMENSION_LABELS": np.array(list(axes), dtype=object),
        "display_mode": "grayscale",
    }
    if known:
        attributes["axis_units"] = json.dumps({a: "um" if a in known else "" for a in axes if a in "zyx"})
    if {"y", "x"} <= set(pixel_size):
        attributes["element_size_um"] = np.array([pixel_size.get(a, 1.0) for a in "zyx"], np.float32)
    if limits is not None:
        attributes["drange"] = np.array(limits)
    return attributes
