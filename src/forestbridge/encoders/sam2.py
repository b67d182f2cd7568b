"""SAM 2.1's image encoder, Hiera-L and Hiera-B+: from three colours to its pyramid at strides 4, 8 and 16, and the trunk's stages.

The pyramid's maps at strides 4 and 8 are 1 × 1 convolutions of one stage each; only that at stride 16 has something from stride 32 added.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from forestbridge.encoders.layers import HeadByHead, attention

MODELS = {"sam2_large": "sam2_hiera_large", "sam2_base": "sam2_hiera_base_plus"}
"""timm's names."""

PREFIX = "image_encoder."

STRIDES = (4, 8, 16, 32)
"""Of the stages."""

BAND = 64
"""Rows of cells of stride 4 at a time where attention is written out; a multiple of the windows of the first two stages."""


def build_network(name: str, maps: Sequence[str], *, exportable: bool = False) -> "Sam2Encoder":
    """Return the network without weights.

    Parameters
    ----------
    name
        One of `MODELS`.
    maps
        Some of "s4", "s8", "s16", "trunk4", "trunk8", "trunk16", "trunk32".
    exportable
        Whether attention is written out.
    """
    import timm

    with attention(exportable=exportable):
        trunk: Any = timm.create_model(MODELS[name], num_classes=0)
    widths = [info["num_chs"] for info in trunk.feature_info]
    del trunk.head
    if not exportable:
        return Sam2Encoder(trunk, widths, tuple(maps))
    for block in trunk.blocks:
        if not block.is_windowed:
            block.attn = HeadByHead(block.attn)
    return Sam2Encoder(trunk, widths, tuple(maps), band=BAND)


def encoder_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image encoder of a checkpoint, under its official names without "image_encoder."."""
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


def module_names(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the official weights under the names that `Sam2Encoder` gives them."""
    return {_module_name(k): v for k, v in part.items()}


def _module_name(official: str) -> str:
    name = official.replace("mlp.layers.0.", "mlp.fc1.").replace("mlp.layers.1.", "mlp.fc2.")
    if name.startswith("neck.convs."):  # counted from the coarsest stage
        place, rest = name.removeprefix("neck.convs.").split(".", 1)
        return f"neck.{3 - int(place)}.{rest.removeprefix('conv.')}" if place in ("0", "1", "2", "3") else name
    return name


class Sam2Encoder(nn.Module):
    """The trunk's four stages, as far as they are wanted, and the pyramid.

    Parameters
    ----------
    trunk
        timm's.
    widths
        Of its stages.
    maps
        The wanted ones.
    band
        Rows of cells of stride 4 that the first two stages take at a time, to save memory; None for all. No window of theirs lies
        in two bands, so that the values are the same.
    """

    def __init__(self, trunk: nn.Module, widths: list[int], maps: tuple[str, ...], *, band: int | None = None) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.neck = nn.ModuleList(nn.Conv2d(width, 256, 1) for width in widths)
        self.maps = maps
        self.band = band
        coarsest = max(32 if m == "s16" else int(m.removeprefix("trunk").removeprefix("s")) for m in maps)
        self.last_block = self.trunk.stage_ends[STRIDES.index(coarsest)]

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the wanted maps of (N, 3, y, x) standardised colours; y and x are multiples of 32."""
        x = self.trunk._pos_embed(self.trunk.patch_embed(picture))  # (N, y/4, x/4, width)
        rows = int(x.shape[1])
        band = self.band or rows
        # Sizes are given, since torch exports a last band that is smaller as one of the size of the others.
        bands = list(x.split([min(band, rows - start) for start in range(0, rows, band)], 1))
        whole_from = self.trunk.stage_ends[1] + 2  # the block before has the windows of the second stage
        found = {}
        for n in range(self.last_block + 1):
            if n == whole_from:
                bands = [torch.cat(bands, 1)]
            bands = [self.trunk.blocks[n](band) for band in bands]
            if n in self.trunk.stage_ends:
                stage = torch.cat(bands, 1).permute(0, 3, 1, 2)
                found[f"trunk{STRIDES[self.trunk.stage_ends.index(n)]}"] = stage
        for level, stride in enumerate(STRIDES[:3]):
            if f"s{stride}" in self.maps:
                found[f"s{stride}"] = self.neck[level](found[f"trunk{stride}"])  # (N, 256, y/stride, x/stride)
        if "s16" in self.maps:
            below = functional.interpolate(self.neck[3](found["trunk32"]), scale_factor=2.0, mode="nearest")
            found["s16"] = found["s16"] + below
        return tuple(found[m] for m in self.maps)
