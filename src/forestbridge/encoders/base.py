"""Encoders: from a tile of raw intensities to its feature maps. Names, the protocol, and `open_encoder`."""

from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from forestbridge.spec import EncoderSpec
from forestbridge.stores import FEATUREFOREST

NAMES = ("filters",)
"""Encoders that `open_encoder` knows; "filters" needs no weights and is the default."""


class Encoder(Protocol):
    """What every encoder offers."""

    @property
    def spec(self) -> EncoderSpec:
        """Everything that decides the values."""
        ...

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return the feature maps of a tile's core.

        Parameters
        ----------
        tile
            (C, y, x) or (C, z, y, x) float32 raw intensities: the core grown by ``spec.halo`` on each side, clipped where it
            would leave the image (`forestbridge.tiles.Tile.inside`). An encoder of a fixed tile size pads it by reflection.
        core
            Where the core lies in `tile`, one slice per spatial axis.

        Returns
        -------
        maps
            One (F, y, x) or (F, z, y, x) float32 array per map of the spec, covering the core.
        """
        ...


def open_encoder(name: str = "filters", **options: Any) -> Encoder:
    """Make an encoder.

    Parameters
    ----------
    name
        One of `NAMES`.
    options
        Settings of that encoder: see `forestbridge.encoders.filters.FilterBank`.

    Raises
    ------
    ValueError
        If the name is not known.
    """
    match name:
        case "filters":
            from forestbridge.encoders.filters import open_filter_bank

            return open_filter_bank(**options)
    raise ValueError(f"expected one of the encoders {', '.join(NAMES)}, found {name!r}; choose one of these")


def encoder_from_spec(spec: EncoderSpec) -> Encoder:
    """Make the encoder that a store, forest or package was made with.

    Raises
    ------
    ValueError
        If this version has no such encoder, or its arithmetic has another version number.
    """
    match spec.name:
        case "filters":
            from forestbridge.encoders.filters import filter_bank_from_spec

            return filter_bank_from_spec(spec)
    if spec.name == FEATUREFOREST:
        raise ValueError(
            f"expected an encoder that forestbridge runs, found that the features of FeatureForest's {spec.options.get('model')} "
            "(featureforest) come from its feature stores only; extract the image with FeatureForest and give NAME.hdf5 in its place"
        )
    raise ValueError(
        f"expected one of the encoders {', '.join(NAMES)}, found {spec.name!r}; update forestbridge to use it"
    )
