"""From the bytes of a .npy file to an array: plain numbers only, never pickled objects."""

import math
import re

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import PackageError

HEADER_BYTES = 4096
"""A header of plain numbers has about 120 bytes."""

_HEADER = re.compile(
    r"\{'descr': '([<>|=][biuf][1248])', 'fortran_order': (True|False), "
    r"'shape': \(((?:[0-9]{1,12}, ?)*(?:[0-9]{1,12})?)\),? ?\} *\n?"
)
_REMEDY = "save it with numpy.save as an array of plain numbers"


def read_header(head: bytes, size: int, where: str) -> tuple[int, np.dtype, bool, tuple[int, ...]]:
    """Read the header of a .npy file.

    The header is matched, not evaluated, so that nothing in it can be more than a dtype, an order and a shape.

    Parameters
    ----------
    head
        The first bytes of the file, at least `HEADER_BYTES` where it has as many.
    size
        Length of the whole file.
    where
        How messages name the file.

    Returns
    -------
    start, dtype, fortran_order, shape
        Where the numbers begin, and how they lie.

    Raises
    ------
    PackageError
        If it is no .npy file of plain numbers, or its length is not what its header says.
    """
    version = head[6:7]
    length = 2 if version == b"\x01" else 4
    start = 8 + length + int.from_bytes(head[8 : 8 + length], "little")
    if head[:6] != b"\x93NUMPY" or version not in (b"\x01", b"\x02", b"\x03") or start > min(HEADER_BYTES, len(head)):
        raise PackageError(f"{where}: expected a .npy file, found another beginning: {head[:10]!r}; {_REMEDY}")
    text = head[8 + length : start].decode("latin-1")
    if not (match := _HEADER.fullmatch(text)):
        raise PackageError(f"{where}: expected a header of plain numbers, found {text.strip()[:120]!r}; {_REMEDY}")
    try:
        dtype = np.dtype(match.group(1))
    except TypeError as error:
        raise PackageError(f"{where}: expected a dtype that numpy has, found {match.group(1)!r}; {_REMEDY}") from error
    shape = tuple(int(n) for n in match.group(3).replace(" ", "").split(",") if n)
    if len(shape) > 32 or math.prod(shape) * dtype.itemsize != size - start:
        raise PackageError(
            f"{where}: expected {math.prod(shape) * dtype.itemsize} bytes for the shape {shape} of {dtype}, found "
            f"{size - start}; {_REMEDY}"
        )
    return start, dtype, match.group(2) == "True", shape


def read_array(data: bytes, where: str) -> NDArray:
    """Return the array of a .npy file, in the byte order of this machine.

    Raises
    ------
    PackageError
        If it is no .npy file of plain numbers, or its length is not what its header says.
    """
    start, dtype, fortran_order, shape = read_header(data[:HEADER_BYTES], len(data), where)
    flat = np.frombuffer(data, dtype, offset=start)
    array = flat.reshape(shape, order="F" if fortran_order else "C")
    return np.ascontiguousarray(array, dtype.newbyteorder("="))
