"""`Image`: a lazy image with named axes. Only regions that are asked for are read; they come out as finite float32."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ImageError

AXES = "TCZYX"
"""The axes an image may have, in the order in which it has them."""

EXACT_FLOAT32 = 2**24
"""Largest integer up to which float32 holds every integer."""


class LazyArray(Protocol):
    """What an `Image` reads from: a numpy array, a memory map, a zarr array, or a reader of planes."""

    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> np.dtype: ...
    def __getitem__(self, key: tuple[slice, ...], /) -> Any: ...


class ImageShape(Protocol):
    """What an `Image`, and the record that a store keeps of it, have in common: everything but the pixels."""

    @property
    def axes(self) -> str: ...
    @property
    def sizes(self) -> dict[str, int]: ...
    @property
    def pixel_size(self) -> Mapping[str, float]: ...
    @property
    def frame_interval(self) -> float | None: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True, eq=False)
class Image:
    """An image that is read region by region.

    Attributes
    ----------
    data
        Indexed with one slice per axis of `axes`; read only when asked.
    axes
        A subset of "TCZYX" in this order; always with Y and X.
    pixel_size
        Micrometres per pixel for the axes whose size is known, e.g. ``{"z": 2.0, "y": 0.5, "x": 0.5}``; empty when
        unknown.
    frame_interval
        Seconds between frames, None when unknown.
    channel_names
        One per channel, empty when unknown.
    source
        The file's name, for messages and provenance; "array" without a file.
    nan
        Value that replaces NaN and infinite pixels; None refuses them.
    """

    data: LazyArray
    axes: str
    pixel_size: Mapping[str, float]
    frame_interval: float | None = None
    channel_names: tuple[str, ...] = ()
    source: str = "array"
    nan: float | None = None

    def __post_init__(self) -> None:
        if [a for a in AXES if a in self.axes] != list(self.axes) or "Y" not in self.axes or "X" not in self.axes:
            raise ImageError(
                f"{self.source}: expected axes as a subset of {AXES} in this order with Y and X, found {self.axes!r}"
            )
        if len(self.axes) != len(self.data.shape):
            raise ImageError(
                f"{self.source}: expected one axis letter per dimension of {self.data.shape}, found axes {self.axes!r}"
            )
        if 0 in self.data.shape:
            raise ImageError(
                f"{self.source}: expected at least one pixel along each axis, found {self._shape_text()}; check how "
                "the file was written"
            )

    @property
    def shape(self) -> tuple[int, ...]:
        """Length of each axis of `axes`."""
        return tuple(self.data.shape)

    @property
    def dtype(self) -> np.dtype:
        """Dtype of the stored pixels."""
        return np.dtype(self.data.dtype)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each of T, C, Z, Y, X; 1 for an axis that the image does not have."""
        own = dict(zip(self.axes, self.shape, strict=True))
        return {a: own.get(a, 1) for a in AXES}

    @property
    def n_channels(self) -> int:
        """Number of channels."""
        return self.sizes["C"]

    @property
    def stored_axes(self) -> str:
        """The axes in the order in which the file has them; `axes` where there is no file."""
        order = getattr(self.data, "order", None)
        return self.axes if order is None else "".join(self.axes[i] for i in np.argsort(order))

    def plane(self, t: int = 0, z: int = 0) -> NDArray:
        """Return one plane as (C, Y, X) in the image's own dtype."""
        return self._read(t, slice(z, z + 1), slice(None), slice(None))[:, 0]  # (C, 1, Y, X) -> (C, Y, X)

    def region(self, spatial: Sequence[slice], *, t: int = 0, z: int | None = None) -> NDArray[np.float32]:
        """Return a region for an encoder.

        Parameters
        ----------
        spatial
            Slices inside the image: (y, x) of the plane `z`, or (z, y, x).
        t
            Frame.
        z
            Plane; only with (y, x) slices.

        Returns
        -------
        region
            (C, y, x) or (C, z, y, x) float32, finite, native byte order, C-contiguous.

        Raises
        ------
        ImageError
            If the pixels do not fit into float32 or are not finite (and `nan` is None), with count and first place.
        """
        if len(spatial) == 2:
            z = z or 0
            pixels = self._read(t, slice(z, z + 1), *spatial)[:, 0]
            first = (t, z, spatial[0].start or 0, spatial[1].start or 0)
            return self._to_float32(pixels, first)
        pixels = self._read(t, *spatial)
        return self._to_float32(pixels, (t, *(s.start or 0 for s in spatial)))

    def planes(self) -> Iterator[tuple[int, int]]:
        """Yield (t, z) of every plane."""
        sizes = self.sizes
        yield from ((t, z) for t in range(sizes["T"]) for z in range(sizes["Z"]))

    def select_channels(self, channels: Sequence[int]) -> "Image":
        """Return the image with these channels only, in this order.

        Raises
        ------
        ImageError
            If a channel does not exist or stands there twice.
        """
        n = self.n_channels
        if not channels or len(set(channels)) != len(channels) or any(not 0 <= c < n for c in channels):
            raise ImageError(f"{self.source}: expected different channels from 0 to {n - 1}, found {list(channels)}")
        if "C" not in self.axes:
            return self
        names = tuple(self.channel_names[c] for c in channels) if self.channel_names else ()
        return replace(
            self, data=_SelectedChannels(self.data, self.axes.index("C"), tuple(channels)), channel_names=names
        )

    def _read(self, t: int, z: slice, y: slice, x: slice) -> NDArray:
        """Return (C, z, y, x) in the image's own dtype."""
        sizes = self.sizes
        if not 0 <= t < sizes["T"] or not 0 <= (z.start or 0) < sizes["Z"]:
            raise ValueError(
                f"{self.source}: expected a frame below {sizes['T']} and a plane below {sizes['Z']}, found t={t} "
                f"z={z.start}"
            )
        wanted = {"T": slice(t, t + 1), "C": slice(None), "Z": z, "Y": y, "X": x}
        array = np.asarray(self.data[tuple(wanted[a] for a in self.axes)])
        for position, axis in enumerate(AXES):
            if axis not in self.axes:
                array = np.expand_dims(array, position)
        return array[0]  # (1, C, z, y, x) -> (C, z, y, x)

    def _to_float32(self, pixels: NDArray, start: tuple[int, ...]) -> NDArray[np.float32]:
        """Convert (C, ...) pixels whose first one lies at `start` = (t, z, y, x)."""
        if pixels.dtype.kind in "iu" and pixels.dtype.itemsize >= 4 and pixels.size:
            furthest = max(int(pixels.min()), int(pixels.max()), key=abs)
            if abs(furthest) > EXACT_FLOAT32:
                raise ImageError(
                    f"{self.source}: expected integers up to 2^24 = {EXACT_FLOAT32}, which float32 holds exactly, "
                    f"found {furthest}; rescale the image or convert it to float"
                )
        with np.errstate(over="ignore"):  # float64 beyond float32 becomes infinite, and is refused below
            result = np.ascontiguousarray(pixels, dtype=np.float32)
        if pixels.dtype.kind == "f":
            bad = ~np.isfinite(result)
            if bad.any():
                if self.nan is None:
                    c, *place = np.argwhere(bad)[0].tolist()
                    place = [0] * (3 - len(place)) + place  # (z, y, x) inside the region
                    t, *origin = start if len(start) == 4 else (start[0], 0, *start[1:])
                    z, y, x = (o + p for o, p in zip(origin, place, strict=True))
                    raise ImageError(
                        f"{self.source}: expected finite pixels, found {int(bad.sum())} NaN or infinite ones in a "
                        f"region of {pixels.size}, the first at t={t} c={c} z={z} y={y} x={x}; replace them with "
                        "--nan VALUE (nan=VALUE in Python)"
                    )
                result = np.where(bad, np.float32(self.nan), result)
        return result

    def _shape_text(self) -> str:
        return " ".join(f"{a}={n}" for a, n in zip(self.axes, self.data.shape, strict=True))

    def __repr__(self) -> str:
        return f"<Image {self.source}: {self._shape_text()} {self.dtype}>"


@dataclass(frozen=True)
class _SelectedChannels:
    """The channels of another array, read on demand."""

    data: LazyArray
    axis: int
    channels: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        shape = list(self.data.shape)
        shape[self.axis] = len(self.channels)
        return tuple(shape)

    @property
    def dtype(self) -> np.dtype:
        return self.data.dtype

    def __getitem__(self, key: tuple[slice, ...]) -> NDArray:
        wanted = self.channels[key[self.axis]]
        parts = [np.asarray(self.data[(*key[: self.axis], slice(c, c + 1), *key[self.axis + 1 :])]) for c in wanted]
        return np.concatenate(parts, axis=self.axis)


def as_image(image: Image | NDArray, *, axes: str | None = None) -> Image:
    """Return an `Image` for an image or a plain array.

    Parameters
    ----------
    image
        An `Image` (returned unchanged), or an array: (Y, X), (C, Y, X), (C, Z, Y, X), or with the axes named by `axes`.
    axes
        A permutation of a subset of "TCZYX", one letter per dimension of the array.

    Raises
    ------
    ImageError
        If the array has another number of dimensions and no axes, or a dtype that is no intensity.
    """
    if isinstance(image, Image):
        return image
    array = np.asarray(image)
    if array.dtype.kind not in "buif":
        raise ImageError(
            f"expected an array of integers, floats or bool, found {array.dtype}; take the real part or the magnitude "
            "of complex values"
        )
    if axes is None:
        known = {2: "YX", 3: "CYX", 4: "CZYX"}
        if array.ndim not in known:
            raise ImageError(
                f"expected an array with 2, 3 (C, Y, X) or 4 (C, Z, Y, X) dimensions, found {array.shape}; name its "
                "axes with axes='TCZYX'"
            )
        axes = known[array.ndim]
    axes = axes.upper()
    if len(set(axes)) != len(axes) or set(axes) - set(AXES) or len(axes) != array.ndim:
        raise ImageError(
            f"expected axes as different letters of {AXES}, one for each dimension of {array.shape}, found {axes!r}"
        )
    order = sorted(range(len(axes)), key=lambda i: AXES.index(axes[i]))
    return Image(data=array.transpose(order), axes="".join(axes[i] for i in order), pixel_size={})
