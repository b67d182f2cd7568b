"""The files of a store's shards: written whole, and single chunks read, where a general library takes longer to decide than to work.

A shard is one file: its chunks one after the other, and at the end an index of where each begins, as the zarr v3 specification of the
codec ``sharding_indexed`` says. All chunks and the index carry checksums, which are compared.
https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

from collections.abc import Iterable, Iterator, Sequence
from math import prod
from typing import BinaryIO

import numpy as np
from google_crc32c import value as crc32c
from numcodecs.zstd import Zstd
from numpy.typing import NDArray

from forestbridge.stores.grid import MapGrid
from forestbridge.stores.lookup import chunks_of_cells
from forestbridge.stores.metadata import ZSTD_LEVEL

CRC_BYTES = 4

ABSENT = 2**64 - 1
"""Offset and length of a chunk that was not written."""


def shard_content(values: NDArray, m: MapGrid, *, compress: bool) -> Iterator[NDArray[np.uint8]]:
    """Yield the content of a shard's file, in parts that follow each other; a part is overwritten when the next is asked for.

    Parameters
    ----------
    values
        The cells of the shard that lie inside the map, in the stored dtype, with the axes of the map. Chunks that reach beyond are filled
        with NaN, and those that lie outside are absent.
    compress
        Whether chunks are zstd with its checksum; else they are followed by crc32c.
    """
    used = tuple(-(-n // c) for n, c in zip(values.shape, m.chunks, strict=True))
    whole = tuple(n * c for n, c in zip(used, m.chunks, strict=True))
    dtype = np.dtype(m.dtype).newbyteorder("<")
    if whole != values.shape:
        filled = np.full(whole, np.nan, dtype)
        filled[tuple(slice(0, n) for n in values.shape)] = values
        values = filled
    split = values.reshape([n for pair in zip(used, m.chunks, strict=True) for n in pair])
    chunks = split.transpose(
        *range(0, split.ndim, 2), *range(1, split.ndim, 2)
    )  # (chunks along each axis, cells along each axis)
    rows = (chunks[row] for row in np.ndindex(used[:-1]))  # small enough for the processor's cache
    lengths = []
    for content, found in _compressed(rows, dtype) if compress else _with_checksums(rows, dtype):
        lengths += found
        yield content
    index = np.full((*(s // c for s, c in zip(m.shards, m.chunks, strict=True)), 2), ABSENT, "<u8")
    ends = np.cumsum(lengths)
    index[tuple(slice(0, n) for n in used)] = np.stack([ends - lengths, lengths], axis=1).reshape(*used, 2)
    ending = index.reshape(-1).view(np.uint8)
    yield ending
    yield _checksum(ending)


def _with_checksums(rows: Iterable[NDArray], dtype: np.dtype) -> Iterator[tuple[NDArray[np.uint8], list[int]]]:
    """Yield rows of chunks, each chunk followed by its crc32c, and the lengths of the chunks; all in the same memory."""
    content = np.empty((0, 0), np.uint8)
    for row in rows:
        n_bytes = row[0].size * dtype.itemsize
        if not content.size:
            content = np.empty((len(row), n_bytes + CRC_BYTES), np.uint8)
        content[:, :n_bytes].view(dtype).reshape(row.shape)[...] = row
        for chunk in content:
            chunk[n_bytes:] = _checksum(chunk[:n_bytes])
        yield content.reshape(-1), [n_bytes + CRC_BYTES] * len(row)


def _compressed(rows: Iterable[NDArray], dtype: np.dtype) -> Iterator[tuple[NDArray[np.uint8], list[int]]]:
    """Yield rows of chunks as zstd with its checksum, and the lengths of the chunks."""
    codec = Zstd(ZSTD_LEVEL, checksum=True)
    for row in rows:
        packed = [codec.encode(np.ascontiguousarray(chunk, dtype)) for chunk in row]
        yield np.frombuffer(b"".join(packed), np.uint8), [len(p) for p in packed]


def _checksum(data: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the crc32c of bytes, as four bytes, the lowest first."""
    return np.frombuffer(crc32c(data).to_bytes(CRC_BYTES, "little"), np.uint8)


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
