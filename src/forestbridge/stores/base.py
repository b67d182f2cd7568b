"""What every feature store offers, and the two ways to one: `open_store` and `create_store`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from forestbridge.errors import StoreError
from forestbridge.image import AXES, Image
from forestbridge.spec import EncoderSpec

HDF5_SUFFIXES = (".hdf5", ".h5", ".hdf")


@dataclass(frozen=True)
class ImageFacts:
    """What a store knows of the image whose features it holds.

    Attributes
    ----------
    axes, shape
        A subset of "TCZYX" in this order, and the length of each.
    dtype
        Name of the pixels' dtype, e.g. "uint16"; "unknown" in stores of FeatureForest.
    pixel_size
        Micrometres per pixel for the axes whose size is known: ``{"y": 0.5, "x": 0.5}``.
    frame_interval
        Seconds between frames, None when unknown.
    channel_names
        One per input channel, empty when unknown.
    source
        The file's name without its folder; "array" without a file.
    """

    axes: str
    shape: tuple[int, ...]
    dtype: str
    pixel_size: Mapping[str, float] = field(default_factory=dict)
    frame_interval: float | None = None
    channel_names: tuple[str, ...] = ()
    source: str = "array"

    @classmethod
    def of(cls, image: Image) -> Self:
        """Return the facts of an image; no pixel is read."""
        return cls(
            axes=image.axes,
            shape=image.shape,
            dtype=image.dtype.name,
            pixel_size={a: float(image.pixel_size[a]) for a in sorted(image.pixel_size)},
            frame_interval=image.frame_interval,
            channel_names=tuple(image.channel_names),
            source=PurePath(image.source).name,
        )

    @property
    def sizes(self) -> dict[str, int]:
        """Length of each of T, C, Z, Y, X; 1 for an axis that the image does not have."""
        own = dict(zip(self.axes, self.shape, strict=True))
        return {a: own.get(a, 1) for a in AXES}

    def document(self) -> dict[str, Any]:
        """Return the facts as JSON values."""
        return {
            "axes": self.axes,
            "shape": list(self.shape),
            "dtype": self.dtype,
            "pixel_size": dict(self.pixel_size),
            "frame_interval": self.frame_interval,
            "channel_names": list(self.channel_names),
            "source": self.source,
        }

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Self:
        """Read what `document` returned.

        Raises
        ------
        ValueError
            If a key is missing or of a wrong type.
        """
        try:
            interval = document["frame_interval"]
            return cls(
                axes=str(document["axes"]),
                shape=tuple(int(n) for n in document["shape"]),
                dtype=str(document["dtype"]),
                pixel_size={str(a): float(v) for a, v in document["pixel_size"].items()},
                frame_interval=None if interval is None else float(interval),
                channel_names=tuple(str(c) for c in document["channel_names"]),
                source=str(document["source"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"expected the facts of an image, found a document in which {error!r} is wrong") from error


class FeatureStore(Protocol):
    """What every feature store offers."""

    @property
    def path(self) -> Path:
        """Where it lies."""
        ...

    @property
    def spec(self) -> EncoderSpec:
        """The encoder of its features."""
        ...

    @property
    def image(self) -> ImageFacts:
        """The image whose features it holds."""
        ...

    @property
    def done(self) -> bool:
        """Whether the features of the whole image are there."""
        ...

    @property
    def block(self) -> tuple[int, int] | None:
        """Rows and columns of pixels that can only be read together, where they are many; None otherwise."""
        ...

    def at(self, points: ArrayLike) -> NDArray[np.float32]:
        """Return the features of single pixels, reading only the chunks touched.

        Parameters
        ----------
        points
            (N, 2) as (y, x) for images of one plane, or (N, 4) as (t, z, y, x): positions in full-resolution pixels
            inside the image.

        Returns
        -------
        features
            (N, F) float32 in the order of ``spec.feature_names``; maps of stride > 1 by bilinear interpolation, clamped
            at the border.

        Raises
        ------
        StoreError
            If features of a point are not there yet, missing or damaged: the shards are named.
        """
        ...

    def read_map(self, name: str, *, spatial: Sequence[slice], t: int = 0, z: int = 0) -> NDArray:
        """Return a region of one map at its own stride.

        Parameters
        ----------
        name
            Of the map.
        spatial
            Slices in cells of the map: (y, x) of the plane `z`, or (z, y, x).
        t
            Frame.
        z
            Plane; only with (y, x) slices.

        Returns
        -------
        region
            (F, y, x) or (F, z, y, x) in the stored dtype; NaN where a store that is not done has no features yet.

        Raises
        ------
        StoreError
            If features that were written are missing or damaged: the shards are named.
        """
        ...

    def missing(self) -> list[str]:
        """Return the names of the shards that are not there."""
        ...


def open_store(path: str | Path, *, allow_partial: bool = False) -> FeatureStore:
    """Open a feature store for reading.

    Parameters
    ----------
    allow_partial
        Whether a store that is not done is welcome; its missing features are NaN in `read_map` and refused by `at`.

    Raises
    ------
    StoreError
        If there is no store, it is damaged or of an unknown format, or it is not done and `allow_partial` is False.
    """
    path = Path(path)
    if not path.exists():
        raise StoreError(
            f"expected a feature store at {path}, found nothing; make one with: forestbridge extract IMAGE -o {path}"
        )
    if path.is_file():
        from forestbridge.stores.featureforest import open_featureforest
        from forestbridge.stores.patches import is_featureforest

        if path.suffix.lower() in HDF5_SUFFIXES or is_featureforest(path):
            return open_featureforest(path, allow_partial=allow_partial)
        raise StoreError(
            f"expected the folder of a feature store (NAME.features.ome.zarr), or a store of FeatureForest (NAME.hdf5), found that {path} "
            "is another file; make one with: forestbridge extract IMAGE -o NAME.features.ome.zarr"
        )
    from forestbridge.stores.ome_zarr import open_ome_zarr

    return open_ome_zarr(path, allow_partial=allow_partial)


def create_store(
    path: str | Path, spec: EncoderSpec, image: ImageFacts, *, compress: bool = False, overwrite: bool = False
) -> FeatureStore:
    """Make an empty feature store: all metadata, no features.

    Parameters
    ----------
    spec
        The encoder whose features will be written.
    image
        The image whose features will be written.
    compress
        zstd with its own checksum in place of uncompressed chunks with crc32c.
    overwrite
        Replace a feature store that is there already; anything else is never touched.

    Raises
    ------
    OutputExistsError
        If the path exists, unless it is a feature store and `overwrite` is True.
    ResourceError
        If its folder does not exist or cannot be written.
    """
    from forestbridge.stores.ome_writer import create_ome_zarr

    return create_ome_zarr(Path(path), spec, image, compress=compress, overwrite=overwrite)
