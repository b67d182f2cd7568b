"""From pixels as they lie in a file to the array of an `Image`: axes sorted, alpha left out, native byte order."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError
from forestbridge.image.image import AXES
from forestbridge.image.source import Source

CACHE_BYTES = 128 * 2**20
"""How much the decoded strips and tiles of all open files may take; the latest one is kept whatever its size."""


class Pixels(Protocol):
    """Pixels as they lie in a file; no file is open between two reads."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def read(self, region: tuple[slice, ...], /) -> NDArray:
        """Return a region, given as one slice with start and stop inside the shape per axis."""
        ...


@dataclass(frozen=True)
class FileArray:
    """The pixels of a file with the axes in the order of an `Image`; reads what is asked for.

    Attributes
    ----------
    pixels
        As they lie in the file.
    order
        For each axis of the image, which axis of the file it is.
    shape
        Of the image; shorter than the file's along an axis whose end is left out (alpha).
    source
        The file as it was when it was opened; each read compares.
    """

    pixels: Pixels
    order: tuple[int, ...]
    shape: tuple[int, ...]
    source: Source

    @property
    def dtype(self) -> np.dtype:
        """Dtype in native byte order."""
        return self.pixels.dtype.newbyteorder("=")

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray:
        """Return a region: one slice per axis, steps are positive."""
        if len(key) != len(self.shape) or not all(isinstance(s, slice) and (s.step or 1) > 0 for s in key):
            raise IndexError(f"expected one slice with a positive step for each axis of {self.shape}, found {key!r}")
        self.source.check_unchanged()
        bounds = [s.indices(n) for s, n in zip(key, self.shape, strict=True)]
        stored = [slice(0, 1)] * len(
            self.pixels.shape
        )  # an axis that the image does not have is read at its first index
        for position, (start, stop, _) in zip(self.order, bounds, strict=True):
            stored[position] = slice(start, max(start, stop))
        left_out = tuple(i for i in range(len(stored)) if i not in self.order)
        region = self.pixels.read(tuple(stored)).transpose(self.order + left_out)
        region = region.reshape(region.shape[: len(self.order)])  # (..., 1) -> (...)
        return np.ascontiguousarray(region[tuple(slice(None, None, step) for _, _, step in bounds)], dtype=self.dtype)


class _Cache:
    """Decoded arrays by what they were decoded from; the ones used longest ago go first."""

    def __init__(self) -> None:
        self._arrays: OrderedDict[Hashable, NDArray] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, key: Hashable) -> NDArray | None:
        with self._lock:
            if key in self._arrays:
                self._arrays.move_to_end(key)
            return self._arrays.get(key)

    def put(self, key: Hashable, array: NDArray) -> None:
        with self._lock:
            if key not in self._arrays:
                self._arrays[key] = array
                self._bytes += array.nbytes
            while len(self._arrays) > 1 and self._bytes > CACHE_BYTES:
                self._bytes -= self._arrays.popitem(last=False)[1].nbytes


_cache = _Cache()


def remember(key: Hashable, decode: Callable[[], NDArray]) -> NDArray:
    """Return what `decode` gives, from the cache where it was decoded lately; not to be written to.

    Reading tile by tile asks for the same strip many times, a strip being as wide as the image.
    """
    array = _cache.get(key)
    if array is None:
        array = decode()
        _cache.put(key, array)
    return array


def arrange(
    pixels: Pixels, stored_axes: str, source: Source, *, axes: str | None, alpha: bool
) -> tuple[FileArray, str]:
    """Return the pixels with their axes sorted, and the axes.

    Parameters
    ----------
    pixels
        As they lie in the file.
    stored_axes
        One letter per axis of the file: T, C, Z, Y, X, S (samples of a pixel, the same as C), any other letter for
        unknown.
    source
        The file.
    axes
        What the user says the axes are; None takes `stored_axes`.
    alpha
        Whether the last sample is an alpha channel, which is left out.

    Returns
    -------
    array, axes
        An array in the order of "TCZYX", and its axes.

    Raises
    ------
    ImageError
        If the pixels are no intensities, the axes are not known, or `axes` does not fit.
    """
    check_dtype(pixels.dtype, source.name)
    letters = chosen_axes(pixels.shape, stored_axes, axes, source.name)
    shape = list(pixels.shape)
    kept = list(range(len(letters)))
    if alpha:
        samples = stored_axes.index("S")
        shape[samples] -= 1
        if shape[samples] == 1 and axes is None:  # grey with alpha is a grey image
            kept.remove(samples)
    order = tuple(sorted(kept, key=lambda i: AXES.index(letters[i])))
    array = FileArray(pixels, order, tuple(shape[i] for i in order), source)
    return array, "".join(letters[i] for i in order)


def check_dtype(dtype: np.dtype, name: str) -> None:
    """Refuse pixels that are no intensities."""
    if dtype.kind == "c":
        raise ImageError(
            f"{name}: expected real pixels, found complex ones ({dtype}); "
            "save the magnitude (numpy.abs) or the real part (numpy.real) as a file of its own"
        )
    if dtype.kind not in "buif" or dtype.itemsize > 8:
        raise ImageError(
            f"{name}: expected integers, bool or floats of at most 64 bits, found {dtype}; convert the image"
        )


def chosen_axes(shape: Sequence[int], stored_axes: str, axes: str | None, name: str) -> str:
    """Return the axes as letters of TCZYX in the file's order: the user's, or the file's own if it knows them all.

    Raises
    ------
    ImageError
        If the file does not know them and the user does not say, or what the user says does not fit.
    """
    text = "(" + ", ".join(map(str, shape)) + ")"
    if axes is None:
        if set(stored_axes) <= set("TCZYXS") and not {"C", "S"} <= set(stored_axes):
            return stored_axes.replace("S", "C")
        if {"C", "S"} <= set(stored_axes):
            raise ImageError(
                f"{name}: expected one axis of channels, found channels and samples ({stored_axes}, shape {text}); "
                "split the colour samples into channels first"
            )
        likely = _likely_axes(shape, stored_axes)
        options = " or ".join(f"--axes {a}" for a in likely)
        raise ImageError(
            f"{name}: expected axes with a name, found shape {text} and no word about what they are; "
            f'say it with {options} (axes="{likely[0]}" in Python)'
        )
    letters = axes.upper().replace("S", "C")
    if (
        len(letters) != len(shape)
        or len(set(letters)) != len(letters)
        or set(letters) - set(AXES)
        or not {"Y", "X"} <= set(letters)
    ):
        raise ImageError(
            f"{name}: expected axes as {len(shape)} different letters of T (time), C or S (channels), Z, Y, X, among "
            f"them Y and X, one for each dimension of {text}, found {axes!r}; write for example --axes "
            f"{_likely_axes(shape, stored_axes)[0]}"
        )
    if "S" in stored_axes and letters[stored_axes.index("S")] != "C":
        raise ImageError(
            f"{name}: expected C or S for the colour samples of each pixel (dimension {stored_axes.index('S') + 1} of "
            f"{text}), found {axes!r}; write for example --axes {_likely_axes(shape, stored_axes)[0]}"
        )
    return letters


def _likely_axes(shape: Sequence[int], stored_axes: str) -> list[str]:
    """Return what the axes may be, the likeliest first, at most six."""
    unknown = [i for i, letter in enumerate(stored_axes) if letter not in "TCZYXS"]
    free = [a for a in "ZTC" if a not in stored_axes and not (a == "C" and "S" in stored_axes)]
    found: list[str] = []
    if len(shape) > 2 and len(unknown) == len(shape) - 2 and stored_axes[-2:] == "YX" and shape[-1] <= 4 < shape[-3]:
        found += ["".join(p) + "YXC" for p in permutations("ZT", len(shape) - 3)]  # a colour image saved pixel by pixel
    for chosen in permutations(free, len(unknown)):
        letters = list(stored_axes)
        for position, letter in zip(unknown, chosen, strict=True):
            letters[position] = letter
        found.append("".join(letters))
    return sorted(set(found), key=found.index)[:6] or ["TZCYX"[-len(shape) :]]
