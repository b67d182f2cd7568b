"""The deep encoders as numbers: which maps a network has, where their cells lie, and its spec; loads no torch.

Geometry along one axis, in pixels of the network's input: a convolution or pooling of kernel k, stride s and padding p moves the centre
of the first cell by jump · ((k - 1)/2 - p) and multiplies the jump by s. A tile that was enlarged by `zoom` before has jump/zoom image
pixels between its cells, and the centre of the first on (offset + 0.5)/zoom - 0.5.
"""

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from forestbridge.spec import EncoderSpec, MapSpec

VERSION = 1
"""Of the arithmetic from raw pixels to maps; raised when the same tile would give other values."""

PREPROCESSING = ("network", "featureforest")
"""Intensities as the network was trained with, or between 0 and 1 without mean and standard deviation, as FeatureForest gives them."""

Preprocessing = Literal["network", "featureforest"]


class Layer(NamedTuple):
    """A convolution or pooling along one axis."""

    kernel: int
    stride: int
    padding: int


Chain = tuple[Layer, ...]
"""Layers in the order of the computation, as far as they move or widen what a cell sees; 1 × 1 convolutions do neither."""


class MapPlan(NamedTuple):
    """A map that a network can give."""

    name: str
    channels: int
    chain: Chain
    default: bool = True


@dataclass(frozen=True)
class Network:
    """One encoder.

    Attributes
    ----------
    name, title
        The encoder's name, and what people call it.
    advice
        What to choose it for.
    parameters
        Numbers that its maps need.
    inputs
        Numbers of image channels that it takes.
    tile
        Side of a tile with its halo in image pixels, where nothing is said.
    trained
        Side of the pictures that the network was trained with, up to which smaller tiles are enlarged; None for no enlarging.
    mean, std
        Of the three colours between 0 and 1 that the network was trained with; None for networks that take 0 to 1.
    maps
        In the order of their channels.
    local
        Whether cells see a bounded part of the tile only, which then is the halo; otherwise the halo is an eighth of the tile.
    """

    name: str
    title: str
    advice: str
    parameters: int
    inputs: tuple[int, ...]
    tile: int
    maps: tuple[MapPlan, ...]
    trained: int | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    local: bool = False

    @property
    def largest_stride(self) -> int:
        """Of all its maps, in pixels of the network's input."""
        return max(int(sampling(m.chain)[0]) for m in self.maps)

    @property
    def default_maps(self) -> tuple[str, ...]:
        """Names of the maps that are given where nothing is said."""
        return tuple(m.name for m in self.maps if m.default)


def sampling(chain: Chain) -> tuple[float, float]:
    """Return the distance of neighbouring cells and the centre of the first one, in pixels of the network's input."""
    jump, offset = 1, 0.0
    for layer in chain:
        offset += jump * ((layer.kernel - 1) / 2 - layer.padding)
        jump *= layer.stride
    return float(jump), offset


def in_image(jump: float, offset: float, zoom: int) -> tuple[float, float]:
    """Return stride and offset in pixels of an image that was enlarged by `zoom`."""
    return jump / zoom, (offset + 0.5) / zoom - 0.5


def reach(chain: Chain) -> int:
    """Return how many pixels of its input a cell sees beyond the pixels that it stands for, at most, on one side."""
    jump, before, after = 1, 0, 1  # a cell sees the pixels from -before to after - 1, and stands for 0 to jump - 1
    for layer in chain:
        before += jump * layer.padding
        after += jump * (layer.kernel - 1 - layer.padding)
        jump *= layer.stride
    return max(before, after - jump)


_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_SAM = ((123.675 / 255, 116.28 / 255, 103.53 / 255), (58.395 / 255, 57.12 / 255, 57.375 / 255))
"""Mean and standard deviation."""

_PATCH_16 = (Layer(16, 16, 0),)
_PATCH_14 = (Layer(14, 14, 0),)
_SAME = Layer(3, 1, 1)
_HALVE = Layer(3, 2, 1)
_POOL = Layer(2, 2, 0)


def _sam(name: str, title: str, advice: str, parameters: int, width: int) -> Network:
    """Return a SAM: a vision transformer over 16 × 16 pixels, and its neck."""
    maps = (MapPlan("neck", 256, (*_PATCH_16, _SAME)), MapPlan("patch", width, _PATCH_16))
    return Network(name, title, advice, parameters, (1, 3), 512, maps, 1024, *_SAM)


def _sam2(name: str, title: str, advice: str, parameters: int, width: int) -> Network:
    """Return a SAM 2: a hierarchical transformer of four stages, and its pyramid."""
    stages = [(Layer(7, 4, 3),) + (_POOL,) * n for n in range(4)]
    maps = (
        *(MapPlan(f"s{4 * 2**n}", 256, stages[n]) for n in range(3)),
        *(MapPlan(f"trunk{4 * 2**n}", width * 2**n, stages[n], default=False) for n in range(4)),
    )
    return Network(name, title, advice, parameters, (1, 3), 512, maps, 1024, *_IMAGENET)


def _mobile_sam() -> Network:
    patch = (_HALVE, _HALVE)
    stages = ((64, patch), (128, (*patch, _HALVE)), (160, (*patch, _HALVE, _HALVE)), (320, (*patch, _HALVE, _HALVE)))
    maps = (
        MapPlan("neck", 256, stages[3][1]),
        MapPlan("patch", 64, patch),
        *(MapPlan(f"stage{n}", width, chain, default=False) for n, (width, chain) in enumerate(stages, 1)),
    )
    advice = "a first try of deep features on a laptop: small and fast"
    return Network("mobile_sam", "MobileSAM", advice, 5_743_892, (1, 3), 512, maps, 1024, *_SAM)


def _cyto3() -> Network:
    levels: list[Chain] = [(_SAME,) * 4]
    for _ in range(3):
        levels.append((*levels[-1], _POOL, *levels[0]))
    maps = tuple(MapPlan(f"s{2**n}", 32 * 2**n, chain) for n, chain in enumerate(levels))
    advice = "cells and nuclei about 30 pixels wide; fine maps, small and fast"
    return Network("cellpose_cyto3", "Cellpose cyto3", advice, 2_786_984, (1, 2), 512, maps, local=True)


NETWORKS: tuple[Network, ...] = (
    _mobile_sam(),
    _sam("sam_vit_h", "SAM ViT-H", "natural images and large objects; slow without a GPU", 637_026_048, 1280),
    _sam("micro_sam_lm", "microSAM light microscopy", "light microscopy: cells and nuclei", 89_670_912, 768),
    _sam(
        "micro_sam_em",
        "microSAM EM organelles",
        "electron microscopy: mitochondria and other organelles",
        89_670_912,
        768,
    ),
    Network(
        "dinov2",
        "DINOv2 ViT-S/14 with registers",
        "textures and tissue regions, one value in 14 pixels; fast",
        22_057_344,
        (1, 3),
        518,
        (MapPlan("tokens", 384, _PATCH_14),),
        None,
        *_IMAGENET,
    ),
    _sam2("sam2_large", "SAM 2.1 Hiera-L", "the finest maps of the large models; better with a GPU", 212_703_280, 144),
    _sam2("sam2_base", "SAM 2.1 Hiera-B+", "the first choice on a workstation: fine and coarse maps", 69_106_816, 112),
    _cyto3(),
)

DEEP_NAMES = tuple(network.name for network in NETWORKS)

ALIASES = {
    "SAM2_Large": "sam2_large",
    "SAM2_Base": "sam2_base",
    "μSAM_LM": "micro_sam_lm",
    "μSAM_EM_Organelles": "micro_sam_em",
    "Cellpose_cyto3": "cellpose_cyto3",
    "MobileSAM": "mobile_sam",
    "SAM": "sam_vit_h",
    "DinoV2": "dinov2",
}
"""FeatureForest's names."""


def split_name(name: str) -> tuple[str, list[str] | None]:
    """Return an encoder's own name and the maps that were asked for: "SAM2_Base:s4,s8" gives "sam2_base" and [s4, s8]."""
    base, colon, maps = unicodedata.normalize("NFKC", name).partition(":")  # the micro sign becomes a Greek mu
    return ALIASES.get(base, base), [m.strip() for m in maps.split(",")] if colon else None


def is_package_name(name: str) -> bool:
    """Whether an encoder is named by the path of a package."""
    return name.lower().endswith(".zip")


def network_of(name: str) -> Network:
    """Return the network of a deep encoder's own name.

    Raises
    ------
    ValueError
        If there is none.
    """
    found = {network.name: network for network in NETWORKS}
    if name not in found:
        raise ValueError(f"expected one of the deep encoders {', '.join(found)}, found {name!r}; choose one of these")
    return found[name]


def plan_spec(
    network: Network,
    *,
    channels: int,
    low: Sequence[float],
    high: Sequence[float],
    weights: str,
    maps: Sequence[str] | None = None,
    tile: int | None = None,
    zoom: int | None = None,
    preprocessing: Preprocessing = "network",
) -> EncoderSpec:
    """Return the spec of a deep encoder.

    Parameters
    ----------
    channels
        Of the image.
    low, high
        Raw intensities that become 0 and 1, one per channel.
    weights
        sha256 of the original weight file.
    maps
        Names of the maps, in any order; by default those that FeatureForest takes.
    tile
        Side of a tile with its halo, in image pixels.
    zoom
        By how much a tile is enlarged for the network.
    preprocessing
        One of `PREPROCESSING`.

    Raises
    ------
    ValueError
        If the network has no such maps, or does not take such channels or tiles.
    """
    if channels not in network.inputs:
        raise ValueError(channels_text(network, channels))
    low, high = _limits(low, high, channels)
    if preprocessing not in PREPROCESSING:
        raise ValueError(f"expected the preprocessing {' or '.join(PREPROCESSING)}, found {preprocessing!r}")
    side = network.tile if tile is None else tile
    zoom = zoom or (max(network.trained // side, 1) if network.trained and side > 0 else 1)
    step = math.lcm(math.ceil(network.largest_stride / zoom), 2)
    blur = 1 if zoom > 1 else 0  # enlarging looks one pixel further
    margin = max(reach(m.chain) for m in network.maps) / zoom + blur if network.local else side / 8
    halo = step * (math.ceil(margin / step) if network.local else max(round(margin / step), 1))
    if network.largest_stride % zoom or side % step or side <= 2 * halo:
        least = 2 * halo + step if network.local else 3 * step
        raise ValueError(
            f"expected for {network.name} a tile of a multiple of {step} pixels from {least} on, enlarged by a divisor of "
            f"{network.largest_stride}, found tile {side} and zoom {zoom}; leave them out to use tile {network.tile}"
        )
    chosen = choose_maps(network, maps)
    plain = preprocessing == "featureforest" or network.mean is None
    return EncoderSpec(
        name=network.name,
        version=VERSION,
        axes="yx",
        channels=channels,
        intensity={"rule": "linear", "low": low, "high": high},
        tile=(side - 2 * halo,) * 2,
        halo=(halo,) * 2,
        input_size=(side * zoom, side * zoom) if zoom > 1 else None,
        options={
            "preprocessing": preprocessing,
            "mean": None if plain else list(network.mean or ()),
            "std": None if plain else list(network.std or ()),
            "resize": "bilinear",
            "maps": [m.name for m in chosen],
        },
        maps=tuple(_map_spec(m, zoom) for m in chosen),
        dtype="float16",
        weights=weights,
    )


def choose_maps(network: Network, names: Sequence[str] | None) -> tuple[MapPlan, ...]:
    """Return the maps of these names in the network's order.

    Raises
    ------
    ValueError
        If a name is unknown or given twice, or none is given.
    """
    wanted = network.default_maps if names is None else tuple(names)
    known = [m.name for m in network.maps]
    if not wanted or set(wanted) - set(known) or len(set(wanted)) < len(wanted):
        raise ValueError(
            f"expected maps of {network.name} among {', '.join(known)}, each once, found {', '.join(wanted) or 'none'}; "
            f"leave them out to use {', '.join(network.default_maps)}"
        )
    return tuple(m for m in network.maps if m.name in wanted)


def _map_spec(plan: MapPlan, zoom: int) -> MapSpec:
    """Return a map in image pixels.

    Raises
    ------
    ValueError
        If its cells are smaller than a pixel.
    """
    stride, offset = in_image(*sampling(plan.chain), zoom)
    if stride != int(stride):
        raise ValueError(
            f"expected cells of whole pixels, found map {plan.name} of stride {stride:g} at zoom {zoom}; leave this map out, "
            "or use a smaller zoom"
        )
    return MapSpec(plan.name, tuple(f"{plan.name}.{n:03}" for n in range(plan.channels)), stride, offset)


def _limits(low: Sequence[float], high: Sequence[float], channels: int) -> tuple[list[float], list[float]]:
    lows, highs = [float(v) for v in low], [float(v) for v in high]
    if len(lows) != channels or len(highs) != channels:
        raise ValueError(
            f"expected low and high for each of {channels} channel(s), found {len(lows)} and {len(highs)} values"
        )
    if not all(math.isfinite(b - a) and a < b for a, b in zip(lows, highs, strict=True)):
        raise ValueError(f"expected finite low < high for each channel, found low {lows} and high {highs}")
    return lows, highs


def channels_text(network: Network, channels: int) -> str:
    """Return why a number of channels is refused."""
    takes = " or ".join(map(str, network.inputs))
    if network.inputs == (1, 2):
        advice = "choose the channel of the cells, and that of the nuclei if there is one"
    else:
        advice = "choose one channel or three, or the filter bank, which takes any number"
    return f"expected {takes} channels for {network.name}, found {channels}; {advice} (--channels)"
