"""From a spec and weights to the one module that runs and is exported; and from a checkpoint to weights that fit."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from forestbridge.encoders.networks import Network, network_of
from forestbridge.encoders.patchwise import seen_tile
from forestbridge.errors import WeightsError
from forestbridge.spec import EncoderSpec

CONTAINERS = ("model", "model_state", "state_dict")
"""Keys under which published files keep their tensors, beside other things."""


COUNTER = "num_batches_tracked"
"""Of batches in training; nothing reads it, and converted weights do not have it."""


def family_of(name: str) -> ModuleType:
    """Return the module of a network's family: `build_network`, `encoder_part` and `module_names`."""
    match name:
        case "cellpose_cyto3":
            from forestbridge.encoders import cellpose

            return cellpose
        case "sam_vit_h" | "micro_sam_lm" | "micro_sam_em":
            from forestbridge.encoders import sam

            return sam
        case "mobile_sam":
            from forestbridge.encoders import mobile_sam

            return mobile_sam
        case "sam2_large" | "sam2_base":
            from forestbridge.encoders import sam2

            return sam2
        case "dinov2":
            from forestbridge.encoders import dinov2

            return dinov2
    raise ValueError(f"expected a deep encoder, found {name!r}")


class RawNetwork(nn.Module):
    """From raw intensities to maps: intensities, resize, mean and standard deviation, network.

    Parameters
    ----------
    spec
        Of the encoder; with the interpolation "featureforest" the module resizes each map to the tile's pixels.
    network
        From (N, 3, S, S), for Cellpose (N, 2, S, S), to one (N, F, s, s) per map of the spec.
    """

    low: Tensor
    span: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, spec: EncoderSpec, network: nn.Module) -> None:
        super().__init__()
        low = _column(spec.intensity["low"])
        mean, std = spec.options["mean"], spec.options["std"]
        self.register_buffer("low", low, persistent=False)
        self.register_buffer("span", _column(spec.intensity["high"]) - low, persistent=False)
        self.register_buffer("mean", _column(mean or [0.0]), persistent=False)
        self.register_buffer("std", _column(std or [1.0]), persistent=False)
        self.size = spec.input_size
        self.resize = str(spec.options["resize"])
        self.pixels = seen_tile(spec)[0] if spec.interpolation == "featureforest" else None
        self.standardise = mean is not None
        self.channels = spec.channels
        self.inputs = max(network_of(spec.name).inputs)
        self.network = network

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Return one (N, F, t, t) float32 map per map of the spec.

        Parameters
        ----------
        raw
            (N, C, T, T) float32 raw intensities of tiles with their halo.
        """
        x = ((raw - self.low) / self.span).clamp(0.0, 1.0)  # (N, C, T, T)
        if self.size is not None:
            x = self._resized(x, self.size)  # (N, C, S, S)
        if self.channels == 1 and self.inputs == 3:
            x = x.expand(-1, 3, -1, -1)
        elif self.channels < self.inputs:
            x = torch.cat([x, torch.zeros_like(x)], dim=1)  # Cellpose's channel of nuclei, absent
        if self.standardise:
            x = (x - self.mean) / self.std
        maps = self.network(x)
        if self.pixels is None:
            return maps
        return tuple(_bicubic(m.float(), (self.pixels, self.pixels)) for m in maps)  # (N, F, T, T) each

    def _resized(self, x: Tensor, size: tuple[int, int]) -> Tensor:
        if self.pixels is None:
            return functional.interpolate(x, size, mode="bilinear", align_corners=False)
        if self.resize == "bilinear":
            return functional.interpolate(x, size, mode="bilinear", align_corners=False, antialias=True)
        return _bicubic(x, size)


def _bicubic(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (N, C, *size) as FeatureForest resizes: cubic with a = -0.5, weights renormalised at the border, wider where it shrinks."""
    if tuple(x.shape[2:]) == size:
        return x
    return functional.interpolate(x, size, mode="bicubic", align_corners=False, antialias=True)


def _column(values: list[float]) -> Tensor:
    """Return (1, C, 1, 1) float32."""
    return torch.tensor(values, dtype=torch.float32).reshape(1, -1, 1, 1)


def build_module(spec: EncoderSpec, part: Mapping[str, Tensor], *, exportable: bool = False) -> RawNetwork:
    """Make the module of a spec.

    Parameters
    ----------
    part
        The encoder's tensors under their official names, as `convert_checkpoint` gives them.
    exportable
        Whether attention is written out, so that every runtime of TorchScript and ONNX has its operations.

    Raises
    ------
    WeightsError
        If the tensors are not those of the network.
    """
    with torch.device("meta"):  # no time is lost with random numbers
        network = _empty_network(network_of(spec.name), [m.name for m in spec.maps], exportable=exportable)
    family = family_of(spec.name)
    tensors = {name: value.float() for name, value in family.module_names(part).items()}
    try:
        _require_fit(network, tensors, spec.name)
    except ValueError as error:
        raise WeightsError(str(error)) from error
    network.load_state_dict(
        tensors, strict=False, assign=True
    )  # what is missing are counters of batches, which nothing reads
    return RawNetwork(spec, network).eval()


def random_module(spec: EncoderSpec) -> RawNetwork:
    """Make the module of a spec with the random numbers that it begins training with: for measuring what it costs."""
    return RawNetwork(spec, _empty_network(network_of(spec.name), [m.name for m in spec.maps], exportable=False)).eval()


def convert_checkpoint(network: Network) -> Callable[[Any], dict[str, Tensor]]:
    """Return the function that takes the encoder's tensors from what a published file holds.

    It raises ValueError where they are not those of the network.
    """

    def convert(content: Any) -> dict[str, Tensor]:
        family = family_of(network.name)
        state = _tensors_of(content)
        part = family.encoder_part(state)
        with torch.device("meta"):
            empty = _empty_network(network, [m.name for m in network.maps], exportable=False)
        _require_fit(empty, family.module_names(part), network.name)
        return part

    return convert


def _tensors_of(content: Any) -> dict[str, Tensor]:
    """Return names and tensors of a checkpoint, without what surrounds them.

    Raises
    ------
    ValueError
        If there are none.
    """
    for key in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping) or not content:
        raise ValueError(
            f"expected names and tensors, found {type(content).__name__}; give a checkpoint of the network"
        )
    return {str(k).removeprefix("sam."): v for k, v in content.items() if isinstance(v, Tensor)}


def _empty_network(network: Network, maps: list[str], *, exportable: bool) -> nn.Module:
    return family_of(network.name).build_network(network.name, maps, exportable=exportable)


def _require_fit(module: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    """Refuse tensors that are not exactly those of a module.

    Raises
    ------
    ValueError
        If names or shapes differ, or a value is not a number.
    """
    expected = {k: tuple(v.shape) for k, v in module.state_dict().items() if not k.endswith(COUNTER)}
    found = {k: tuple(v.shape) for k, v in tensors.items()}
    missing, strange = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    other = [f"{k} {found[k]} for {expected[k]}" for k in expected if k in found and found[k] != expected[k]]
    not_float = [k for k, v in tensors.items() if not v.is_floating_point()]
    problems = {"missing": missing, "unknown": strange, "of another shape": other, "not of floating point": not_float}
    if any(problems.values()):
        text = "; ".join(f"{len(v)} {what}, such as {v[0]}" for what, v in problems.items() if v)
        raise ValueError(
            f"expected the {len(expected)} tensors of {name}, found others ({text}); give the weights of this network, or choose "
            "the encoder that they belong to"
        )
