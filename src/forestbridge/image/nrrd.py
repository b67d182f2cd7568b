"""NRRD files with their header attached: what `forestbridge` writes, and raw or gzip-compressed ones of other programs.

References
----------
https://teem.sourceforge.net/nrrd/format.html
"""

import math
import shlex
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError
from forestbridge.image.lazy import remember
from forestbridge.image.source import Source, cut_off
from forestbridge.image.units import micrometres, seconds

MAGIC = b"NRRD000"

MOST_HEADER = 2**20
"""Bytes of a header, at most."""

GZIP = 1040
"""Bytes that one byte of gzip can become, at most."""

_TYPES = {
    "i1": ("signed char", "int8", "int8_t"),
    "u1": ("uchar", "unsigned char", "uint8", "uint8_t"),
    "i2": ("short", "short int", "signed short", "signed short int", "int16", "int16_t"),
    "u2": ("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"),
    "i4": ("int", "signed int", "int32", "int32_t"),
    "u4": ("uint", "unsigned int", "uint32", "uint32_t"),
    "i8": ("longlong", "long long", "long long int", "signed long long", "signed long long int", "int64", "int64_t"),
    "u8": ("ulonglong", "unsigned long long", "unsigned long long int", "uint64", "uint64_t"),
    "f4": ("float",),
    "f8": ("double",),
}

_OF_CHANNELS = ("list", "vector", "point", "scalar", "stub", "none")
"""Kinds of axes that are neither space nor time; colours and matrices have names that begin with a number or RGB."""


@dataclass(frozen=True)
class NrrdPixels:
    """The array in an NRRD file, its slowest axis first: mapped, or unpacked whole and kept for the next region."""

    file: Source
    start: int
    packed: bool
    shape: tuple[int, ...]
    dtype: np.dtype

    def read(self, region: tuple[slice, ...]) -> NDArray:
        """Return a region."""
        if self.packed:
            return np.array(remember((self.file, self.start), self._unpack)[region])
        return np.array(np.memmap(self.file.path, self.dtype, mode="r", offset=self.start, shape=self.shape)[region])

    def _unpack(self) -> NDArray:
        needed = math.prod(self.shape) * self.dtype.itemsize
        unpacker = zlib.decompressobj(wbits=31)
        with Path(self.file.path).open("rb") as file:
            file.seek(self.start)
            try:
                data = unpacker.decompress(file.read(), needed)
            except zlib.error as error:
                raise ImageError(
                    f"{self.file.name}: expected pixels packed with gzip, found damaged ones ({error}); copy or export it again"
                ) from error
        if len(data) < needed:
            raise cut_off(self.file.name, f"{needed} bytes of pixels", f"{len(data)} after unpacking")
        return np.frombuffer(data, self.dtype).reshape(self.shape)


def open_nrrd(source: Source) -> tuple[NrrdPixels, str, dict[str, Any]]:
    """Return the pixels of an NRRD file, their axes (as far as the file says), and pixel size and frame interval.

    Raises
    ------
    ImageError
        If the file is damaged or cut off, its pixels lie in another file, or are packed in another way.
    """
    fields, _, start = read_header(source)
    for name in ("type", "dimension", "sizes", "encoding"):
        if name not in fields:
            raise _damaged(source, f"no field {name!r}")
    if found := [name for name in ("data file", "datafile", "line skip", "lineskip") if name in fields]:
        raise ImageError(
            f"{source.name}: expected an NRRD file with its pixels behind the header, found the field {found[0]!r}; save it as one "
            "file (.nrrd)"
        )
    encoding = fields["encoding"].lower()
    if encoding not in ("raw", "gzip", "gz"):
        raise ImageError(
            f"{source.name}: expected raw pixels or ones packed with gzip, found {fields['encoding']!r}; save it so"
        )
    dtype = _dtype(source, fields)
    try:
        sizes = [int(text) for text in fields["sizes"].split()]
        skip = int(fields.get("byte skip", fields.get("byteskip", "0")))
        count = int(fields["dimension"])
    except ValueError as error:
        raise _damaged(source, str(error)) from error
    if len(sizes) != count or not 2 <= count <= 5 or min(sizes) < 1:
        raise ImageError(
            f"{source.name}: expected 2 to 5 dimensions of 1 and more, found dimension {count} and sizes {fields['sizes']}; save it again"
        )
    needed = math.prod(sizes) * dtype.itemsize
    packed = encoding != "raw"
    start = source.size - needed if skip == -1 and not packed else start + skip
    if skip < -1 or (skip and packed):
        raise _damaged(source, f"a byte skip of {skip} before {encoding} pixels")
    if start < 0 or needed > (GZIP * source.size if packed else source.size - start):
        raise cut_off(
            source.name, f"{max(start, 0) + needed} bytes for sizes {sizes} of {dtype}", f"{source.size} bytes"
        )
    letters = _axes(fields, count)
    pixels = NrrdPixels(source, start, packed, tuple(reversed(sizes)), dtype)
    return pixels, letters[::-1], _calibration(fields, letters)


def read_header(source: Source) -> tuple[dict[str, str], dict[str, str], int]:
    """Return the fields of a header (names in lower case), its key/value pairs, and the byte behind it.

    Raises
    ------
    ImageError
        If it has no end, or is no text.
    """
    with Path(source.path).open("rb") as file:
        data = file.read(MOST_HEADER)
    ends = [(data.find(mark), len(mark)) for mark in (b"\n\n", b"\n\r\n") if mark in data]
    if not ends:
        raise _damaged(source, f"no empty line in the first {len(data)} bytes")
    place, length = min(ends)
    try:
        lines = data[:place].decode().splitlines()[1:]
    except UnicodeDecodeError as error:
        raise _damaged(source, "bytes that are no text") from error
    fields, pairs = {}, {}
    for line in lines:
        key, mark, value = line.partition(":=")
        if line.startswith("#"):
            continue
        if mark:
            pairs[_plain(key)] = _plain(value)
            continue
        key, mark, value = line.partition(":")
        if not mark:
            raise _damaged(source, f"the line {line[:60]!r}")
        fields[key.strip().lower()] = value.strip()
    return fields, pairs, place + length


def _plain(text: str) -> str:
    """Return a text of a key/value pair without its escapes."""
    return text.replace("\\\\", "\0").replace("\\n", "\n").replace("\0", "\\")


def _damaged(source: Source, found: str) -> ImageError:
    return ImageError(f"{source.name}: expected an NRRD header, found {found}; save it again")


def _dtype(source: Source, fields: Mapping[str, str]) -> np.dtype:
    found = [code for code, names in _TYPES.items() if fields["type"].lower() in names]
    if not found:
        raise ImageError(
            f"{source.name}: expected pixels that are numbers, found the type {fields['type']!r}; save it so"
        )
    dtype = np.dtype(found[0])
    if dtype.itemsize == 1:
        return dtype
    match fields.get("endian", "").lower():
        case "little":
            return dtype.newbyteorder("<")
        case "big":
            return dtype.newbyteorder(">")
    raise _damaged(source, f"no byte order (endian) for the type {fields['type']!r}")


def _axes(fields: Mapping[str, str], count: int) -> str:
    """Return the letters of the axes, the fastest first: from their labels, else their kinds; Q where nothing is said."""
    labels = [label.upper() for label in _words(fields.get("labels", ""))]
    if len(labels) == count and len(set(labels)) == count and set(labels) <= set("TCZYX") and {"Y", "X"} <= set(labels):
        return "".join(labels)
    kinds = [kind.lower() for kind in fields.get("kinds", "").split()]
    if len(kinds) != count and "space directions" in fields:
        directions = _directions(fields["space directions"])
        kinds = ["list" if vector is None else "space" for vector in directions]
    if len(kinds) == count:
        space = iter("XYZ")
        named = {"time": "T", **dict.fromkeys(_OF_CHANNELS, "C")}
        letters = [
            next(space, "Q") if kind in ("domain", "space") else named.get(kind, "C" if "color" in kind else "Q")
            for kind in kinds
        ]
        if len(set(letters)) == count and {"Y", "X"} <= set(letters):
            return "".join(letters)
    return "XY" + "Q" * (count - 2)


def _calibration(fields: Mapping[str, str], letters: str) -> dict[str, Any]:
    """Return `pixel_size`, `frame_interval` and `channel_names` as in `Image`; sizes without a unit are not known."""
    units: Sequence[str | None] = _words(fields.get("units", ""))
    steps = [_number(text) for text in fields.get("spacings", "").split()]
    if "space directions" in fields:
        vectors = _directions(fields["space directions"])
        steps = [math.nan if v is None else math.hypot(*v) for v in vectors]
        of_space = iter(_words(fields.get("space units", "")))
        units = [None if v is None else next(of_space, None) for v in vectors]
    if not len(steps) == len(units) == len(letters):
        steps, units = [], []
    found = dict(zip(letters, zip(steps, units, strict=True), strict=False))
    sizes = {a.lower(): micrometres(*found[a]) for a in "ZYX" if a in found}
    return {
        "pixel_size": {axis: size for axis, size in sizes.items() if size is not None},
        "frame_interval": seconds(*found["T"]) if "T" in found else None,
        "channel_names": (),
    }


def _directions(text: str) -> list[tuple[float, ...] | None]:
    """Return the vectors of "(1,0,0) (0,1,0) none"; None for axes that are not of space."""
    return [
        None if part == "none" else tuple(_number(number) for number in part.strip("()").split(","))
        for part in text.replace(", ", ",").split()
    ]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _words(text: str) -> list[str]:
    """Return the words of a line, those in quotes without these; nothing where quotes do not end."""
    try:
        return shlex.split(text)
    except ValueError:
        return []
