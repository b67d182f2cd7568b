"""Encoders: from a tile of raw intensities to its feature maps. Names, the protocol, and `open_encoder`."""

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.networks import ALIASES, DEEP_NAMES, is_package_name, split_name
from forestbridge.encoders.own_options import own_options
from forestbridge.encoders.plugins import find_plugins, open_plugin, plugin_from_spec
from forestbridge.errors import MissingExtraError
from forestbridge.image import as_image
from forestbridge.spec import EncoderSpec
from forestbridge.stores import FEATUREFOREST

NAMES = ("filters", *DEEP_NAMES)
"""Our own encoders; "filters" needs no weights and is the default."""

RESERVED = frozenset({*NAMES, *ALIASES, FEATUREFOREST, "package"})
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


@runtime_checkable
class BatchEncoder(Encoder, Protocol):
    """An encoder that takes several tiles at once."""

    @property
    def batch(self) -> int | None:
        """How many; None for one at first, and then as many as fit."""
        ...

    def encode_batch(self, tiles: Sequence[tuple[NDArray[np.float32], tuple[slice, ...]]]) -> list[tuple[NDArray, ...]]:
        """Return what `encode` returns of each of the tiles with its core, in float32 or rounded to the spec's dtypes."""
        ...


def encoder_names() -> tuple[str, ...]:
    """Return the names that `open_encoder` knows here: our own, and those of plugins."""
    return (*NAMES, *find_plugins(RESERVED))


def split_encoders(name: str) -> list[str]:
    """Return the names that stand with + between them; a package whose own name has a + is one."""
    return [name] if is_package_name(name) and Path(name).is_file() else name.split("+")


def open_encoder(name: str | Path = "filters", **options: Any) -> Encoder:
    """Make an encoder.

    Parameters
    ----------
    name
        One of `encoder_names`, or a name of FeatureForest's; for deep encoders also with the wanted maps: "sam2_base:s4,s8". Several
        with + between are one encoder with the features of all: "sam2_base:s8+filters". The path of a package, "NAME.zip", is an
        encoder too.
    options
        Settings of that encoder: see `forestbridge.encoders.filters.open_filter_bank`,
        `forestbridge.encoders.deep.open_deep_encoder`, `forestbridge.encoders.package.open_package_encoder` and
        `forestbridge.encoders.combined.open_combination`. For deep encoders
        ``images=[...]`` stands for `channels`, `low` and `high`, which are measured over these images
        (`forestbridge.encoders.intensity.measure_intensity`); with ``interpolation="featureforest"`` for `channels` and `tile`.

    Raises
    ------
    ValueError
        If the name is not known.
    MissingExtraError
        If a deep encoder is asked for and torch or timm is not installed.
    PluginError
        If the encoder of a plugin fails.
    PackageError, TrustError
        If a package is no encoder, or carries code.
    """
    name = str(name)
    if len(parts := split_encoders(name)) > 1:
        from forestbridge.encoders.combined import open_combination

        return open_combination(parts, **options)
    if is_package_name(name):
        from forestbridge.encoders.package import open_package_encoder

        [options] = own_options([name], options)
        return open_package_encoder(name, **options)
    if name == "filters":
        from forestbridge.encoders.filters import open_filter_bank

        return open_filter_bank(**options)
    deep_name, maps = split_name(name)
    if deep_name in DEEP_NAMES:
        [options] = own_options([deep_name], options)
        require_torch(deep_name)
        from forestbridge.encoders.deep import open_deep_encoder

        if maps is not None:
            options["maps"] = maps
        images, patchwise = options.pop("images", None), options.get("interpolation") == "featureforest"
        if images is not None and patchwise:
            from forestbridge.encoders.patchwise import image_options

            options |= image_options([as_image(i) for i in images], options)
        elif images is not None:
            from forestbridge.encoders.intensity import measure_intensity

            options |= measure_intensity(images)._asdict()
        elif not patchwise and not {"low", "high"} <= options.keys():
            raise ValueError(
                f"expected the intensities that become 0 and 1 for {deep_name}, found none; give images=[...] to measure them, or "
                "low=[...] and high=[...], one value per channel"
            )
        return open_deep_encoder(deep_name, **options)
    require_name(name)
    return open_plugin(find_plugins(RESERVED)[name], options)


def require_name(name: str) -> None:
    """Refuse what is neither a package nor an encoder's name, with or without maps.

    Raises
    ------
    ValueError
        With the names that there are.
    """
    base, known = split_name(name)[0], encoder_names()
    if not is_package_name(name) and (base not in known or (":" in name and base not in DEEP_NAMES)):
        raise ValueError(f"expected one of the encoders {', '.join(known)}, found {name!r}; choose one of these")


def encoder_from_spec(spec: EncoderSpec, **options: Any) -> Encoder:
    """Make the encoder that a store, forest or package was made with.

    Parameters
    ----------
    options
        How a deep encoder runs, `device` or `batch` for one: see `forestbridge.encoders.deep.deep_encoder_from_spec`. The filter
        bank has none of them. With ``weights="NAME.zip"`` it runs from that package: see
        `forestbridge.encoders.package.package_encoder_from_spec`.

    Raises
    ------
    ValueError
        If this version has no such encoder, or its arithmetic has another version number.
    MissingExtraError, WeightsError, ResourceError
        If a deep encoder's libraries or weights are not there, or a plugin's encoder fails.
    SpecMismatchError
        If a plugin is installed in another version, or a package is another one.
    """
    if spec.parts:
        from forestbridge.encoders.combined import combination_from_spec

        return combination_from_spec(spec, **options)
    if spec.name == "filters":
        from forestbridge.encoders.filters import filter_bank_from_spec

        return filter_bank_from_spec(spec)
    [options] = own_options([spec.name], options)
    weights = options.get("weights")
    if spec.name == "package" or (weights is not None and is_package_name(str(weights))):
        from forestbridge.encoders.package import package_encoder_from_spec

        return package_encoder_from_spec(spec, options.pop("weights", None), **options)
    if spec.name in DEEP_NAMES:
        require_torch(spec.name)
        from forestbridge.encoders.deep import deep_encoder_from_spec

        return deep_encoder_from_spec(spec, **options)
    if spec.name == FEATUREFOREST:
        raise ValueError(
            f"expected an encoder that forestbridge runs, found that the features of FeatureForest's {spec.options.get('model')} "
            "(featureforest) come from its feature stores only; extract the image with FeatureForest and give NAME.hdf5 in its "
            "place, or convert the model again, for images, with ff-package convert --encoder"
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
