"""A result as OME-Zarr 0.5 or 0.4. In 0.5 labels are an image that shows its own label image; in 0.4, for ilastik, a plain image."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import OutputExistsError
from forestbridge.files import check_output, sync_file, sync_folder
from forestbridge.image.chunks import ChunkedTarget
from forestbridge.image.ome_zarr import NODE_FILES
from forestbridge.image.result_info import ResultInfo

CHUNK = 512
"""Side of a chunk in pixels; a chunk holds one plane of one class."""

FIVE_AXES = "TCZYX"

LABEL_NAME = "classes"
"""Name of the label image inside a label result."""


@contextmanager
def new_folder(path: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give a temporary folder beside `path`; move it there when the block ends well, remove it otherwise.

    Raises
    ------
    OutputExistsError
        If the path exists and `overwrite` is False, or is a folder that is no Zarr.
    ResourceError
        If the folder of `path` does not exist or is not writable.
    """
    path = check_output(path, overwrite=overwrite)
    if path.is_dir() and not any((path / f).exists() for f in NODE_FILES):
        raise OutputExistsError(
            f"expected a Zarr folder to overwrite, found that {path} is another folder; give another name"
        )
    temporary = path.with_name(f".{path.name}.{token_hex(4)}.partial")
    old = path.with_name(f".{path.name}.{token_hex(4)}.old")
    try:
        temporary.mkdir()
        yield temporary
        for folder, _, files in os.walk(temporary):
            for file in files:
                sync_file(Path(folder, file))
            sync_folder(Path(folder))
        if path.exists():
            path.rename(old)
        temporary.rename(path)
        sync_folder(path.absolute().parent)
    finally:
        for leftover in (temporary, old):
            if leftover.is_dir():
                rmtree(leftover)
            else:
                leftover.unlink(missing_ok=True)


def create_ome_zarr(path: Path, info: ResultInfo) -> ChunkedTarget:
    """Fill an empty folder with the metadata of a result and an array for its pixels: OME-Zarr 0.5."""
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import LocalStore

    store = LocalStore(path)
    array_path = f"labels/{LABEL_NAME}/0" if info.is_labels else "0"
    root: dict[str, Any] = {"version": "0.5", "multiscales": [_multiscale(info, array_path)]}
    if "C" in info.axes:
        root["omero"] = {
            "channels": [_channel(n, c, info.limits) for n, c in zip(info.names, info.colours, strict=True)]
        }
    zarr.create_group(store, attributes={"ome": root, "forestbridge": info.facts()}, zarr_format=3)
    if info.is_labels:
        listed = {"ome": {"version": "0.5", "labels": [LABEL_NAME]}}
        zarr.create_group(store, path="labels", attributes=listed, zarr_format=3)
        label = {"version": "0.5", "multiscales": [_multiscale(info, "0")], "image-label": _image_label(info)}
        zarr.create_group(store, path=f"labels/{LABEL_NAME}", attributes={"ome": label}, zarr_format=3)
    array = zarr.create_array(
        store,
        name=array_path,
        shape=info.shape,
        dtype=info.dtype,
        chunks=tuple(min(n, CHUNK) if a in "YX" else 1 for a, n in info.sizes.items()),
        compressors=[ZstdCodec(level=1, checksum=True)],
        fill_value=0,
        dimension_names=[a.lower() for a in info.axes],
    )
    return _target(array, tuple(range(len(info.axes))))


def create_ome_zarr_04(path: Path, info: ResultInfo) -> ChunkedTarget:
    """Fill an empty folder with the metadata of a result and an array for its pixels: OME-Zarr 0.4, axes t, c, z, y, x.

    ilastik writes these five axes itself, and reads no other version.
    """
    sizes = info.sizes
    attributes: dict[str, Any] = {"forestbridge": info.facts()}
    if "C" in info.axes:
        channels = [_channel(n, c, info.limits) for n, c in zip(info.names, info.colours, strict=True)]
        attributes["omero"] = {"channels": channels}
    multiscale = _multiscale(info, "0", FIVE_AXES)
    shape = tuple(sizes.get(a, 1) for a in FIVE_AXES)
    order = tuple(info.axes.index(a) if a in info.axes else None for a in FIVE_AXES)
    return create_five_axes(path, shape, info.dtype, multiscale=multiscale, attributes=attributes, order=order)


def create_five_axes(
    path: Path,
    shape: tuple[int, ...],
    dtype: np.dtype,
    *,
    multiscale: Mapping[str, Any],
    attributes: Mapping[str, Any],
    order: tuple[int | None, ...],
) -> ChunkedTarget:
    """Fill an empty folder with an OME-Zarr 0.4 image of one level.

    Parameters
    ----------
    shape
        (T, C, Z, Y, X).
    multiscale
        Entry of `multiscales`; its one dataset says where the array goes.
    attributes
        That stand beside it.
    order
        As in `ChunkedTarget`.
    """
    import zarr
    from numcodecs import Zstd
    from zarr.storage import LocalStore

    store = LocalStore(path)
    root = {"multiscales": [{"version": "0.4", **multiscale}], **attributes}
    zarr.create_group(store, attributes=root, zarr_format=2)
    array = zarr.create_array(
        store,
        name=multiscale["datasets"][0]["path"],
        shape=shape,
        dtype=dtype,
        chunks=tuple(min(n, CHUNK) if a in "YX" else 1 for a, n in zip(FIVE_AXES, shape, strict=True)),
        compressors=[Zstd(level=1)],
        fill_value=0,
        zarr_format=2,
        chunk_key_encoding={"name": "v2", "separator": "/"},
    )
    return _target(array, order)


def _target(array: Any, order: tuple[int | None, ...]) -> ChunkedTarget:
    """Return an array of zarr as a target."""

    def put(place: tuple[slice, ...], chunk: NDArray) -> None:
        array[place] = chunk

    return ChunkedTarget(array.shape, array.chunks, array.dtype, order, put)


def _multiscale(info: ResultInfo, array_path: str, names: str | None = None) -> dict[str, Any]:
    """Return a `multiscales` entry of one level; axes whose size is not known have scale 1 and no unit."""
    axes, scale = [], []
    for axis in (names or info.axes).lower():
        kind = {"t": "time", "c": "channel"}.get(axis, "space")
        size = info.frame_interval if axis == "t" else info.pixel_size.get(axis)
        unit = {} if size is None else {"unit": "second" if axis == "t" else "micrometer"}
        axes.append({"name": axis, "type": kind, **unit})
        scale.append(1.0 if size is None else float(size))
    level = {"path": array_path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"name": info.title, "axes": axes, "datasets": [level]}


def _channel(name: str, colour: str, limits: tuple[float, float] | None) -> dict[str, Any]:
    channel = {"label": name, "color": colour[1:].upper(), "active": True}
    if limits is None:
        return channel
    low, high = limits
    return {**channel, "window": {"min": low, "max": high, "start": low, "end": high}}


def _image_label(info: ResultInfo) -> dict[str, Any]:
    if info.n_objects is not None:  # viewers give objects colours of their own
        return {"version": "0.5", "source": {"image": "../../"}}
    values = [int(v) for v in info.classes]
    return {
        "version": "0.5",
        "colors": [{"label-value": v, "rgba": [*c, 255]} for v, c in zip(values, info.rgb(), strict=True)],
        "properties": [{"label-value": v, "name": n} for v, n in zip(values, info.names, strict=True)],
        "source": {"image": "../../"},
    }
