"""Results as one run of uncompressed pixels, so that a block has its place: NPY, ImageJ TIFF, OME-TIFF, NRRD."""

import errno
import os
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from numpy.typing import NDArray

from forestbridge.errors import ResourceError
from forestbridge.image.image import EXACT_FLOAT32
from forestbridge.image.result_info import ResultInfo
from forestbridge.image.source import shown

TIFF_BYTES = 2**32 - 2**25
"""Pixels beyond this need BigTIFF, or (ImageJ) a description of the first plane only: offsets in TIFF have 32 bits."""

STRIP_BYTES = 2**20
"""About how much one strip of an OME-TIFF holds, so that programs need not read a whole plane for a corner of it."""


@dataclass(frozen=True)
class MappedTarget:
    """Pixels from `offset` on, in C order of `shape`; axis i of the file is axis ``order[i]`` of the result."""

    path: Path
    offset: int
    dtype: np.dtype
    shape: tuple[int, ...]
    order: tuple[int, ...]

    def write(self, region: tuple[slice, ...], block: NDArray) -> None:
        """Write a block. The file is mapped for this call only, so that written pixels do not count as memory."""
        mapped = np.memmap(self.path, self.dtype, mode="r+", offset=self.offset, shape=self.shape)
        mapped[tuple(region[i] for i in self.order)] = block.transpose(self.order)

    def finish(self) -> None:
        """Do nothing: the pixels are in their places."""


def check_space(path: Path, info: ResultInfo) -> None:
    """Refuse a result that the disk has no room for.

    Raises
    ------
    ResourceError
        With the bytes needed and free.
    """
    free = shutil.disk_usage(path.absolute().parent).free
    if info.nbytes > free:
        raise ResourceError(
            f"expected {info.nbytes / 2**30:.1f} GiB of free space for {shown(path)}, found {free / 2**30:.1f} GiB; "
            "make room or write elsewhere"
        )


def create_npy(path: Path, info: ResultInfo) -> MappedTarget:
    """Make an NPY file with the axes of the result; the format has no place for anything else."""
    with path.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(info.dtype), "fortran_order": False, "shape": info.shape}
        np.lib.format.write_array_header_1_0(file, header)
        offset = file.tell()
    return _reserved(path, offset, info.dtype, info, info.axes)


def create_raw(path: Path, info: ResultInfo) -> MappedTarget:
    """Make a file of pixels only, for formats that are packed at the end."""
    path.touch()
    return _reserved(path, 0, info.dtype, info, info.axes)


def create_imagej_tiff(path: Path, info: ResultInfo) -> MappedTarget:
    """Make an ImageJ TIFF: a hyperstack with calibration, display range, and colours (labels) or class names.

    Raises
    ------
    ValueError
        If ImageJ cannot open such pixels.
    """
    dtype = info.dtype
    if dtype == np.dtype("u4") and info.is_labels and info.largest <= EXACT_FLOAT32:
        dtype = np.dtype("f4")  # ImageJ has no integers of 32 bits, and floats hold these exactly
    if dtype not in (np.dtype("u1"), np.dtype("u2"), np.dtype("f4")):
        raise ValueError(
            f"expected uint8, uint16 or float32 pixels, which ImageJ opens, found {info.dtype}; write .ome.tif or "
            ".ome.zarr"
        )
    plane = info.sizes["Y"] * info.sizes["X"]
    if plane * info.dtype.itemsize >= TIFF_BYTES or plane >= 2**31:
        raise ValueError(
            f"expected planes of less than 4 GB, which an ImageJ TIFF holds, found {plane} pixels of {info.dtype}; "
            "write .ome.tif or .ome.zarr"
        )
    axes = "".join(a for a in "TZCYX" if a in info.axes)
    size = info.pixel_size
    metadata: dict[str, object] = {"axes": axes, "unit": "micron" if size else "pixel"}
    metadata |= {"spacing": size["z"]} if "z" in size and "Z" in axes else {}
    metadata |= {"finterval": info.frame_interval} if info.frame_interval is not None and "T" in axes else {}
    if (limits := (0.0, float(info.largest or 1)) if info.is_labels else info.limits) is not None:
        metadata["min"], metadata["max"] = limits
    metadata["Info"] = "".join(f"{k}: {v}\n" for k, v in info.facts().items())
    colours: dict[str, Any] = {"photometric": "minisblack"}
    if info.is_labels and (info.largest < 256 or info.n_objects is not None):
        if info.largest < 256:
            metadata["max"] = 255.0  # then label k is shown in colour k of the table
        if info.dtype.itemsize == 1:  # ImageJ takes the table of an image without channels from the palette alone
            colours = {"photometric": "palette", "colormap": info.lookup_table().astype(np.uint16) * 257}
        else:
            metadata["LUTs"] = [info.lookup_table()]
    elif "C" in axes:
        sizes = info.sizes
        metadata["Labels"] = list(info.names) * (sizes.get("T", 1) * sizes.get("Z", 1))
        metadata |= {"Ranges": info.limits * sizes["C"]} if info.limits is not None else {}
    y, x = size.get("y"), size.get("x")
    with tifffile.TiffWriter(path, imagej=True, byteorder="<") as tif:
        place = tif.write(
            shape=tuple(info.sizes[a] for a in axes),
            dtype=dtype,
            **colours,
            metadata=metadata,
            resolution=None if y is None or x is None else (1 / x, 1 / y),
            resolutionunit="NONE",
            truncate=info.nbytes > TIFF_BYTES,
            returnoffset=True,
        )
    assert place is not None
    return _reserved(path, place[0], dtype.newbyteorder("<"), info, axes)


def create_ome_tiff(path: Path, info: ResultInfo) -> MappedTarget:
    """Make an OME-TIFF, a BigTIFF where it must be, with pixel size, class names as channels, classes and provenance.

    Raises
    ------
    ValueError
        If OME-TIFF has no such pixels.
    """
    if info.dtype.itemsize > 4:
        raise ValueError(f"expected pixels of up to 32 bits, which OME-TIFF has, found {info.dtype}; write .ome.zarr")
    size = info.pixel_size
    metadata: dict[str, object] = {"axes": info.axes, "Name": info.title}
    for axis in "xyz":
        if axis in size:
            metadata |= {f"PhysicalSize{axis.upper()}": size[axis], f"PhysicalSize{axis.upper()}Unit": "µm"}
    if info.frame_interval is not None:
        metadata |= {"TimeIncrement": info.frame_interval, "TimeIncrementUnit": "s"}
    if "C" in info.axes:
        metadata["Channel"] = {"Name": list(info.names), "Color": [_ome_colour(c) for c in info.rgb()]}
    metadata["MapAnnotation"] = {"Namespace": "forestbridge", "Value": info.facts()}
    y, x = size.get("y"), size.get("x")
    rows = max(1, STRIP_BYTES // (info.sizes["X"] * info.dtype.itemsize))
    with tifffile.TiffWriter(path, ome=True, bigtiff=info.nbytes > TIFF_BYTES, byteorder="<") as tif:
        place = tif.write(
            shape=info.shape,
            dtype=info.dtype,
            photometric="minisblack",
            metadata=metadata,
            rowsperstrip=min(rows, info.sizes["Y"]),
            resolution=None if y is None or x is None else (1e4 / x, 1e4 / y),
            resolutionunit="CENTIMETER",
            returnoffset=True,
        )
    assert place is not None
    return _reserved(path, place[0], info.dtype.newbyteorder("<"), info, info.axes)


def create_nrrd(path: Path, info: ResultInfo) -> MappedTarget:
    """Make an NRRD file (version 5, raw): the fastest axis first, micrometres and seconds, classes as key/value pairs.

    References
    ----------
    https://teem.sourceforge.net/nrrd/format.html
    """
    fastest_first = info.axes[::-1]
    kinds = {"T": "time", "C": "list"}
    units = {"T": "s", "C": ""}
    steps = {a.upper(): v for a, v in info.pixel_size.items()} | {"T": info.frame_interval}
    names = {"u1": "uint8", "u2": "uint16", "u4": "uint32", "u8": "uint64", "f4": "float"}
    lines = [
        "NRRD0005",
        "# written by forestbridge",
        f"type: {names[info.dtype.str[1:]]}",
        f"dimension: {len(info.axes)}",
        f"sizes: {' '.join(str(info.sizes[a]) for a in fastest_first)}",
        f"spacings: {' '.join('nan' if steps.get(a) is None else repr(float(steps[a] or 0)) for a in fastest_first)}",
        f"kinds: {' '.join(kinds.get(a, 'domain') for a in fastest_first)}",
        "labels: " + " ".join(f'"{a.lower()}"' for a in fastest_first),
        "units: "
        + " ".join('"{}"'.format(units.get(a, "um") if steps.get(a) is not None else "") for a in fastest_first),
        f"endian: {sys.byteorder}",
        "encoding: raw",
        *(f"{_one_line(k)}:={_one_line(v)}" for k, v in info.facts().items()),
    ]
    header = ("\n".join(lines) + "\n\n").encode()
    path.write_bytes(header)
    return _reserved(path, len(header), info.dtype, info, info.axes)


def _one_line(text: str) -> str:
    """Return a text as NRRD keys and values have it: line ends escaped, no `:=` inside."""
    return re.sub(":=", ": =", text.replace("\\", "\\\\").replace("\n", "\\n"))


def _reserved(path: Path, offset: int, dtype: np.dtype, info: ResultInfo, axes: str) -> MappedTarget:
    """Take the disk space of all pixels now: on a full disk, writing to a mapped page would end the program."""
    with path.open("rb+") as file:
        size = max(offset + info.nbytes, path.stat().st_size)
        try:
            os.posix_fallocate(file.fileno(), 0, size)
        except AttributeError:  # macOS, Windows
            file.truncate(size)
        except OSError as error:  # a file system that cannot reserve
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS):
                raise
            file.truncate(size)
    order = tuple(info.axes.index(a) for a in axes)
    return MappedTarget(path, offset, dtype, tuple(info.sizes[a] for a in axes), order)


def _ome_colour(rgb: tuple[int, int, int]) -> int:
    """Return an opaque colour as OME has it: RGBA in a signed 32-bit integer."""
    red, green, blue = rgb
    return int.from_bytes(bytes((red, green, blue, 255)), "big", signed=True)
