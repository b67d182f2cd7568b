"""A result as OME-Zarr 0.5: probabilities as an image; labels as an image that shows its own label image."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from secrets import token_hex
from shutil import rmtree
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import OutputExistsError
from forestbridge.files import check_output, sync_file, sync_folder
from forestbridge.image.ome_zarr import NODE_FILES
from forestbridge.image.result_info import ResultInfo

CHUNK = 512
"""Side of a chunk in pixels; a chunk holds one plane of one class."""

LABEL_NAME = "classes"
"""Name of the label image inside a label result."""


@dataclass(frozen=True)
class ZarrTarget:
    """The array of a result. Blocks are gathered into chunks, so that each chunk is packed once.

    Attributes
    ----------
    array
        The zarr array.
    waiting
        Place of each chunk that is not complete, to its pixels and how many of them are there: a few chunks, where blocks come
        chunk by chunk.
    """

    array: Any
    waiting: dict[tuple[int, ...], tuple[NDArray, list[int]]] = field(default_factory=dict)

    def write(self, region: tuple[slice, ...], block: NDArray) -> None:
        """Take a block; every pixel comes once."""
        sizes = self.array.chunks
        touched = [range(s.start // n, (s.stop - 1) // n + 1) for s, n in zip(region, sizes, strict=True)]
        for place in product(*touched):
            low = [p * n for p, n in zip(place, sizes, strict=True)]
            shape = tuple(min(n, end - a) for n, end, a in zip(sizes, self.array.shape, low, strict=True))
            parts = [slice(max(s.start, a), min(s.stop, a + n)) for s, a, n in zip(region, low, shape, strict=True)]
            if place not in self.waiting:
                self.waiting[place] = np.empty(shape, self.array.dtype), [0]
            chunk, count = self.waiting[place]
            part = block[tuple(slice(p.start - s.start, p.stop - s.start) for p, s in zip(parts, region, strict=True))]
            chunk[tuple(slice(p.start - a, p.stop - a) for p, a in zip(parts, low, strict=True))] = part
            count[0] += part.size
            if count[0] == chunk.size:
                self.array[tuple(slice(a, a + n) for a, n in zip(low, shape, strict=True))] = chunk
                del self.waiting[place]

    def finish(self) -> None:
        """Do nothing: every chunk is in its file."""


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


def create_ome_zarr(path: Path, info: ResultInfo) -> ZarrTarget:
    """Fill an empty folder with the metadata of a result and an array for its pixels."""
    import zarr
    from zarr.codecs import ZstdCodec
    from zarr.storage import LocalStore

    store = LocalStore(path)
    array_path = f"labels/{LABEL_NAME}/0" if info.is_labels else "0"
    root: dict[str, Any] = {"version": "0.5", "multiscales": [_multiscale(info, array_path)]}
    if "C" in info.axes:
        root["omero"] = {"channels": [_channel(n, c) for n, c in zip(info.names, info.colours, strict=True)]}
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
    return ZarrTarget(array)


def _multiscale(info: ResultInfo, array_path: str) -> dict[str, Any]:
    """Return a `multiscales` entry of one level; axes whose size is not known have scale 1 and no unit."""
    axes, scale = [], []
    for axis in info.axes.lower():
        kind = {"t": "time", "c": "channel"}.get(axis, "space")
        size = info.frame_interval if axis == "t" else info.pixel_size.get(axis)
        unit = {} if size is None else {"unit": "second" if axis == "t" else "micrometer"}
        axes.append({"name": axis, "type": kind, **unit})
        scale.append(1.0 if size is None else float(size))
    level = {"path": array_path, "coordinateTransformations": [{"type": "scale", "scale": scale}]}
    return {"name": "labels" if info.is_labels else "probabilities", "axes": axes, "datasets": [level]}


def _channel(name: str, colour: str) -> dict[str, Any]:
    window = {"min": 0.0, "max": 1.0, "start": 0.0, "end": 1.0}
    return {"label": name, "color": colour[1:].upper(), "active": True, "window": window}


def _image_label(info: ResultInfo) -> dict[str, Any]:
    values = [int(v) for v in info.classes]
    return {
        "version": "0.5",
        "colors": [{"label-value": v, "rgba": [*c, 255]} for v, c in zip(values, info.rgb(), strict=True)],
        "properties": [{"label-value": v, "name": n} for v, n in zip(values, info.names, strict=True)],
        "source": {"image": "../../"},
    }
