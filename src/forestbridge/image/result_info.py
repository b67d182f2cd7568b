"""What stands beside the pixels of a result: axes, sizes, classes; and the check of every block that is written."""

import colorsys
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forestbridge.image.image import AXES


def _object_colours() -> NDArray[np.uint8]:
    """Return (3, 255) colours whose neighbours differ: the hue goes on by the golden angle, saturation and brightness take turns."""
    rgb = [colorsys.hsv_to_rgb(k * 0.618034 % 1, (0.9, 0.55)[k % 2], (1.0, 0.85, 0.7)[k % 3]) for k in range(255)]
    return np.rint(np.array(rgb).T * 255).astype(np.uint8)


OBJECT_COLOURS = _object_colours()
"""Colours of objects 1 to 255."""


@dataclass(frozen=True)
class ResultInfo:
    """What stands beside the pixels of labels, probabilities, or one value per pixel.

    Attributes
    ----------
    axes
        A subset of "TCZYX" in this order; C is the class axis of probabilities.
    shape
        Length of each axis.
    dtype
        Unsigned integers: labels, as painted. Floats: probabilities, or one value per pixel (uncertainty).
    pixel_size
        Micrometres per pixel of z, y, x, as far as known.
    frame_interval
        Seconds between frames, None when unknown.
    classes, names, colours
        One label value, name and "#rrggbb" per class.
    provenance
        Short texts: forest, spec fingerprint, tool version; stored where the format has a place for them.
    title
        What the pixels are, where a format has a place for it: "probabilities", "uncertainty", "features"; always "labels" for these.
    limits
        Smallest and largest value of floats, for display; None where they are not known.
    n_objects
        Of labels whose values are objects 1, 2, … n, not classes, their number: each is shown in a colour of its own. None for classes.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: np.dtype
    pixel_size: Mapping[str, float]
    frame_interval: float | None
    classes: tuple[int, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...]
    provenance: Mapping[str, str] = field(default_factory=dict)
    title: str = "probabilities"
    limits: tuple[float, float] | None = (0.0, 1.0)
    n_objects: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "dtype", np.dtype(self.dtype))
        if self.is_labels:
            object.__setattr__(self, "title", "labels")
            object.__setattr__(self, "limits", None)
        if [a for a in AXES if a in self.axes] != list(self.axes) or not {"Y", "X"} <= set(self.axes):
            raise ValueError(f"expected axes as a subset of {AXES} in this order with Y and X, found {self.axes!r}")
        if len(self.shape) != len(self.axes) or any(n < 1 for n in self.shape):
            raise ValueError(f"expected a positive length for each of the axes {self.axes}, found shape {self.shape}")
        if not len(self.classes) == len(self.names) == len(self.colours):
            raise ValueError(
                f"expected a name and a colour for each class, found {len(self.classes)} classes, {len(self.names)} "
                f"names and {len(self.colours)} colours"
            )
        bad = [c for c in self.colours if not re.fullmatch("#[0-9a-fA-F]{6}", c)]
        if bad:
            raise ValueError(f"expected colours as #rrggbb, found {bad}")
        if "C" in self.axes and self.sizes["C"] != len(self.classes):
            raise ValueError(f"expected a class axis of length {len(self.classes)}, found {self.sizes['C']}")
        if self.n_objects is not None and (self.classes or not self.is_labels):
            raise ValueError("expected labels without classes for objects, found classes or floats")
        if self.is_labels and "C" in self.axes:
            raise ValueError(f"expected labels without a class axis, found axes {self.axes} of {self.dtype}")

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each axis."""
        return dict(zip(self.axes, self.shape, strict=True))

    @property
    def is_labels(self) -> bool:
        """Whether the pixels are label values."""
        return self.dtype.kind in "iu"

    @property
    def nbytes(self) -> int:
        """Bytes of all pixels."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize

    @property
    def largest(self) -> int:
        """Largest label value: of the classes, or of the objects; 0 if there is none."""
        return max(self.classes, default=0) if self.n_objects is None else self.n_objects

    def rgb(self) -> list[tuple[int, int, int]]:
        """Return the colours as numbers from 0 to 255."""
        return [(int(c[1:3], 16), int(c[3:5], 16), int(c[5:7], 16)) for c in self.colours]

    def lookup_table(self) -> NDArray[np.uint8]:
        """Return (3, 256) colours: label k in its class's colour, objects in different ones, anything else black."""
        table = np.zeros((3, 256), np.uint8)
        if self.n_objects is not None:
            table[:, 1:] = OBJECT_COLOURS
        for value, colour in zip(self.classes, self.rgb(), strict=True):
            table[:, value] = colour
        return table

    def facts(self) -> dict[str, str]:
        """Return classes and provenance as short texts, for formats that keep such."""
        word = "class" if self.title != "features" else "feature"
        classes = {f"{word} {v}": f"{n} {c}" for v, n, c in zip(self.classes, self.names, self.colours, strict=True)}
        objects = {} if self.n_objects is None else {"objects": str(self.n_objects)}
        return {**classes, **objects, **dict(self.provenance)}


class ResultWriter(Protocol):
    """What `create_result` gives."""

    def write(self, region: tuple[slice, ...], block: ArrayLike, /) -> None:
        """Write the pixels of a region, one slice for each axis of the result; every pixel is written once."""
        ...


class Target(Protocol):
    """A file or folder that takes blocks in the axes and dtype of the result."""

    def write(self, region: tuple[slice, ...], block: NDArray, /) -> None: ...
    def finish(self) -> None: ...


class CheckedWriter:
    """Checks blocks, passes them to a target, and counts the pixels."""

    def __init__(self, info: ResultInfo, target: Target) -> None:
        self._info = info
        self._target = target
        self._written = 0

    def write(self, region: tuple[slice, ...], block: ArrayLike) -> None:
        """Write a block.

        Raises
        ------
        ValueError
            If the region lies outside, the block has another shape, or its values do not fit the dtype.
        """
        block = np.asarray(block)
        bounds = [s.indices(n) for s, n in zip(region, self._info.shape)]
        if len(region) != len(self._info.shape) or any(
            step != 1 or (s.stop or 0) > n or (s.start or 0) < 0
            for s, n, (_, _, step) in zip(region, self._info.shape, bounds)
        ):
            raise ValueError(f"expected a region inside the result {self._info.shape}, found {region}")
        wanted = tuple(stop - start for start, stop, _ in bounds)
        if block.shape != wanted:
            raise ValueError(f"expected a block of {wanted} for the region {region}, found {block.shape}")
        self._target.write(tuple(slice(a, b) for a, b, _ in bounds), _converted(block, self._info.dtype))
        self._written += block.size

    def check_complete(self) -> None:
        """Refuse a result with pixels that nobody wrote."""
        total = int(np.prod(self._info.shape, dtype=np.int64))
        if self._written < total:
            raise ValueError(f"expected all {total} pixels of the result to be written, found {self._written}")


def label_dtype(classes: Sequence[int]) -> np.dtype:
    """Return the smallest unsigned dtype that holds 0 and all label values."""
    return np.min_scalar_type(max([*classes, 0]))


def _converted(block: NDArray, dtype: np.dtype) -> NDArray:
    """Return a block in the dtype of the result, refusing values that would change."""
    if block.dtype == dtype:
        return block
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        fits = block.dtype.kind in "bui" and (
            not block.size or (int(block.min()) >= limits.min and int(block.max()) <= limits.max)
        )
    else:
        fits = block.dtype.kind in "buif"
    if not fits:
        raise ValueError(f"expected values that fit {dtype}, found a block of {block.dtype}; round or clip it first")
    return block.astype(dtype)
