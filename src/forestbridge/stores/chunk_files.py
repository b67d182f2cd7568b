"""Single chunks read from the files of a store: a few of many, where a general reader takes longer to decide than to read.

A shard is one file: its chunks one after the other, and at the end an index of where each begins, as the zarr v3 specification of the
codec ``sharding_indexed`` says. All chunks and the index carry checksums, which are compared.
"""

from collections.abc import Sequence
from math import prod
from typing import BinaryIO

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from forestbridge.stores.grid import MapGrid
from forestbridge.stores.lookup import chunks_of_cells

CRC_BYTES = 4

ABSENT = 2**64 - 1
"""Offset and length of a chunk that was not written."""


class ShardFile:
    """The chunks of one shard of a map, read from an open file.

    Parameters
    ----------
    file
        Open for reading.
    m
        Map whose shard it is.
    compress
        Whether chunks are zstd with its checksum; else they are followed by crc32c.

    Raises
    ------
    ValueError
        If the index is not there or does not match its checksum.
    """

    def __init__(self, file: BinaryIO, m: MapGrid, *, compress: bool) -> None:
        self._file = file
        self._compress = compress
        self._shape = m.chunks
        self._dtype = np.dtype(m.dtype).newbyteorder("<")
        self._grid = tuple(s // c for s, c in zip(m.shards, m.chunks, strict=True))
        length = 16 * prod(self._grid) + CRC_BYTES
        self._size = file.seek(0, 2)
        if self._size < length:
            raise ValueError(f"expected an index of {length} bytes at the end, found a file of {self._size}")
        file.seek(self._size - length)
        index = _checked(file.read(length), "the index")
        self._index = np.frombuffer(index, "<u8").reshape(*self._grid, 2)

    def chunk(self, index: tuple[int, ...]) -> NDArray:
        """Return one chunk in the stored dtype, read-only, with the axes of the map.

        Parameters
        ----------
        index
            Of the chunk inside the shard, one number per axis of the map.

        Raises
        ------
        ValueError, RuntimeError
            If it is not there, is cut, or does not match its checksum.
        """
        offset, length = self._index[index].tolist()
        if offset == ABSENT:
            raise ValueError("chunks are missing")
        if offset + length > self._size:
            raise ValueError(
                f"expected chunks in the {self._size} bytes of the file, found one up to byte {offset + length}"
            )
        self._file.seek(offset)
        stored = self._file.read(length)
        data = Zstd().decode(stored) if self._compress else _checked(stored, f"chunk {index}")
        expected = prod(self._shape) * self._dtype.itemsize
        if len(data) != expected:
            raise ValueError(f"expected a chunk of {expected} bytes, found {len(data)}")
        return np.frombuffer(data, self._dtype).reshape(self._shape)


def read_cells(file: BinaryIO, m: MapGrid, cells: Sequence[NDArray[np.intp]], *, compress: bool) -> NDArray[np.float32]:
    """Return the (N, F) float32 features of N cells of one shard, reading only their chunks.

    Parameters
    ----------
    cells
        Their places in the shard, (N,) for each axis of the map besides c.

    Raises
    ------
    ValueError, RuntimeError
        As `ShardFile`.
    """
    shard = ShardFile(file, m, compress=compress)
    own = [a for a in m.axes if a != "c"]
    values = np.empty((len(cells[0]), len(m.spec.channels)), np.float32)
    for region, rows, within in chunks_of_cells(m.axes, m.shards, m.chunks, dict(zip(own, cells, strict=True))):
        index = tuple((r.start or 0) // c for r, c in zip(region, m.chunks, strict=True))
        block = np.moveaxis(shard.chunk(index), m.axes.index("c"), 0)  # (F, ...)
        values[rows] = block[(slice(None), *within)].T
    return values


def _checked(data: bytes, what: str) -> NDArray[np.uint8]:
    """Return the bytes without the crc32c that ends them, if they match it."""
    body = np.frombuffer(data, np.uint8)[:-CRC_BYTES]
    found, expected = crc32c(body), int.from_bytes(data[-CRC_BYTES:], "little")
    if found != expected:
        raise ValueError(f"expected the checksum {expected:#010x} of {what}, found {found:#010x}")
    return body
