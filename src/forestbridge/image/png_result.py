"""A label plane as a palette PNG, label k being colour number k; packed row by row, in little memory."""

import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge.image.mapped_results import MappedTarget, create_raw
from forestbridge.image.result_info import ResultInfo

MAX_SIDE = 2**31 - 1
"""Longest side of a PNG."""


@dataclass(frozen=True)
class PngTarget:
    """Takes blocks into a file of plain pixels beside the PNG, and packs that at the end."""

    path: Path
    pixels: MappedTarget
    info: ResultInfo

    def write(self, region: tuple[slice, ...], block: NDArray) -> None:
        """Write a block."""
        self.pixels.write(region, block)

    def finish(self) -> None:
        """Pack the pixels as PNG in their place."""
        height, width = self.info.shape
        packed = self.path.with_name(self.path.name + ".png")
        try:
            with packed.open("wb") as file:
                file.write(b"\x89PNG\r\n\x1a\n")
                # 8 bits, colour type 3 (palette), deflate, standard filters, not interlaced
                file.write(_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)))
                file.write(_chunk(b"PLTE", self.info.lookup_table().T.tobytes()))
                if "x" in self.info.pixel_size and "y" in self.info.pixel_size:
                    per_metre = [round(1e6 / self.info.pixel_size[a]) for a in "xy"]
                    file.write(_chunk(b"pHYs", struct.pack(">IIB", *per_metre, 1)))
                packer = zlib.compressobj(6)
                rows = max(1, 2**20 // width)
                for y in range(0, height, rows):
                    shape = (min(rows, height - y), width)
                    labels = np.memmap(self.path, np.uint8, mode="r", offset=y * width, shape=shape)
                    strip = np.pad(labels, ((0, 0), (1, 0)))  # each row starts with its filter: 0, none
                    file.write(_chunk(b"IDAT", packer.compress(strip.tobytes())))
                file.write(_chunk(b"IDAT", packer.flush()))
                file.write(_chunk(b"IEND", b""))
            packed.replace(self.path)
        finally:
            packed.unlink(missing_ok=True)


def create_png(path: Path, info: ResultInfo) -> PngTarget:
    """Make a PNG of labels.

    Raises
    ------
    ValueError
        If the result is no single plane of labels up to 255.
    """
    if not info.is_labels or info.axes != "YX" or info.dtype.itemsize > 1 or max(info.shape) > MAX_SIDE:
        raise ValueError(
            f"expected one plane of labels up to 255 for a PNG, found axes {info.axes} of {info.dtype}; "
            "write .tif, .ome.tif or .ome.zarr"
        )
    return PngTarget(path, create_raw(path, info), info)


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
