"""Encoders: from a tile of raw intensities to its feature maps. Names, the protocol, and `open_encoder`."""

from importlib.util import find_spec
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.networks import ALIASES, DEEP_NAMES, split_name
from forestbridge.encoders.plugins import find_plugins, open_plugin, plugin_from_spec
from forestbridge.errors import MissingExtraError
from forestbridge.spec import EncoderSpec
from forestbridge.stores import FEATUREFOREST

NAMES = ("filters", *DEEP_NAMES)
"""Our own encoders; "filters" needs no weights and is the default."""

RESERVED = frozenset({*NAMES, *ALIASES, FEATUREFOREST})
"""Names that no plugin can have."""


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


def encoder_names() -> tuple[str, ...]:
    """Return the names that `open_encoder` knows here: our own, and those of plugins."""
    return (*NAMES, *find_plugins(RESERVED))


def open_encoder(name: str = "filters", **options: Any) -> Encoder:
    """Make an encoder.

    Parameters
    ----------
    name
        One of `encoder_names`, or a name of FeatureForest's; for deep encoders also with the wanted maps: "sam2_base:s4,s8".
    options
        Settings of that encoder: see `forestbridge.encoders.filters.open_filter_bank` and
        `forestbridge.encoders.deep.open_deep_encoder`.

    Raises
    ------
    ValueError
        If the name is not known.
    MissingExtraError
        If a deep encoder is asked for and torch or timm is not installed.
    PluginError
        If the encoder of a plugin fails.
    """
    if name == "filters":
        from forestbridge.encoders.filters import open_filter_bank

        return open_filter_bank(**options)
    deep_name, maps = split_name(name)
    if deep_name in DEEP_NAMES:
        require_torch(deep_name)
        from forestbridge.encoders.deep import open_deep_encoder

        if maps is not None:
            options["maps"] = maps
        return open_deep_encoder(deep_name, **options)
    plugins = find_plugins(RESERVED)
    if name in plugins:
        return open_plugin(plugins[name], options)
    known = ", ".join((*NAMES, *plugins))
    raise ValueError(f"expected one of the encoders {known}, found {name!r}; choose one of these")


def encoder_from_spec(spec: EncoderSpec) -> Encoder:
    """Make the encoder that a store, forest or package was made with.

    Raises
    ------
    ValueError
        If this version has no such encoder, or its arithmetic has another version number.
    MissingExtraError, WeightsError, ResourceError
        If a deep encoder's libraries or weights are not there, or a plugin's encoder fails.
    SpecMismatchError
        If a plugin is installed in another version.
    """
    if spec.name == "filters":
        from forestbridge.encoders.filters import filter_bank_from_spec

        return filter_bank_from_spec(spec)
    if spec.name in DEEP_NAMES:
        require_torch(spec.name)
        from forestbridge.encoders.deep import deep_encoder_from_spec

        return deep_encoder_from_spec(spec)
    if spec.name == FEATUREFOREST:
        raise ValueError(
            f"expected an encoder that forestbridge runs, found that the features of FeatureForest's {spec.options.get('model')} "
            "(featureforest) come from its feature stores only; extract the image with FeatureForest and give NAME.hdf5 in its place"
        )
    plugins = find_plugins(RESERVED)
    if spec.name in plugins:
        return plugin_from_spec(plugins[spec.name], spec)
    known = ", ".join((*NAMES, *plugins))
    raise ValueError(
        f"expected one of the encoders {known}, found {spec.name!r}; update forestbridge, or install the package that has this encoder"
    )


def require_torch(name: str) -> None:
    """Refuse a deep encoder whose libraries are missing.

    Raises
    ------
    MissingExtraError
        If torch or timm is not installed.
    """
    if find_spec("torch") is None or find_spec("timm") is None:
        raise MissingExtraError(f"the encoder {name}", "torch")
