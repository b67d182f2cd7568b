"""DINOv2 ViT-S/14 with registers: from three colours to one token of 384 numbers for each 14 × 14 pixels."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from forestbridge.encoders.layers import HeadByHead, attention

MODEL = "vit_small_patch14_reg4_dinov2"
"""timm's name."""

PATCH = 14


def build_network(name: str, maps: Sequence[str], *, exportable: bool = False) -> "Dinov2Encoder":
    """Return the network without weights.

    Parameters
    ----------
    name
        "dinov2".
    maps
        "tokens", its only map.
    exportable
        Whether attention is written out.
    """
    import timm

    with attention(exportable=exportable):
        trunk: Any = timm.create_model(MODEL, num_classes=0, dynamic_img_size=True)
    for block in trunk.blocks if exportable else ():
        block.attn = HeadByHead(block.attn)
    return Dinov2Encoder(trunk)


def encoder_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the checkpoint without the token that stands for hidden patches in training."""
    return {k: v for k, v in state.items() if k != "mask_token"}


def module_names(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the official weights under the names that `Dinov2Encoder` gives them.

    timm has no position for the class token; it is added to the token itself.
    """
    state = dict(part)
    if {"cls_token", "pos_embed"} <= set(state) and state["pos_embed"].ndim == 3 == state["cls_token"].ndim:
        state["cls_token"] = state["cls_token"] + state["pos_embed"][:, :1]
        state["pos_embed"] = state["pos_embed"][:, 1:]
    return {f"trunk.{'reg_token' if k == 'register_tokens' else k}": v for k, v in state.items()}


class Dinov2Encoder(nn.Module):
    """The transformer, and its tokens as a map."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk: Any = trunk

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the map of (N, 3, y, x) standardised colours; y and x are multiples of 14."""
        rows, columns = picture.shape[2] // PATCH, picture.shape[3] // PATCH
        tokens = self.trunk.forward_features(picture)  # (N, 1 + 4 + rows·columns, 384)
        patches = tokens[:, self.trunk.num_prefix_tokens :]
        return (patches.transpose(1, 2).reshape(-1, patches.shape[2], rows, columns),)

    @contextmanager
    def positions_for(self, height: int, width: int) -> Iterator[None]:
        """Hold the positions of a picture of so many pixels ready: ONNX has no operation that resizes them as the network does."""
        from timm.layers.pos_embed import resample_abs_pos_embed

        before, grid = self.trunk.pos_embed, self.trunk.patch_embed.grid_size
        size = (height // PATCH, width // PATCH)
        with torch.no_grad():
            resized = resample_abs_pos_embed(before, list(size), grid, num_prefix_tokens=0)
        self.trunk.pos_embed, self.trunk.patch_embed.grid_size = nn.Parameter(resized, requires_grad=False), size
        try:
            yield
        finally:
            self.trunk.pos_embed, self.trunk.patch_embed.grid_size = before, grid
