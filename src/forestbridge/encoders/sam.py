"""SAM's image encoder, ViT-H, and ViT-B as microSAM trained it: from three colours to neck and patch embedding, both at stride 16."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from forestbridge.encoders.layers import attention

MODELS = {
    "sam_vit_h": "samvit_huge_patch16",
    "micro_sam_lm": "samvit_base_patch16",
    "micro_sam_em": "samvit_base_patch16",
}
"""timm's names."""

PREFIX = "image_encoder."

PATCH = 16
"""Side of what becomes a token, in pixels of the picture."""

MOST_SCORES = 2**25
"""Scores that attention adds positions to at a time."""


def build_network(name: str, maps: Sequence[str], *, exportable: bool = False) -> "SamEncoder":
    """Return the network without weights.

    Parameters
    ----------
    name
        One of `MODELS`.
    maps
        "neck" and "patch", or one of them.
    exportable
        Whether attention is written out.
    """
    import timm

    with attention(exportable=exportable):
        trunk: Any = timm.create_model(MODELS[name], num_classes=0)
    if not exportable:
        for block in trunk.blocks:
            block.attn = FewHeads(block.attn)
    return SamEncoder(trunk, tuple(maps))


def encoder_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image encoder of a checkpoint of SAM, under its official names without "image_encoder."."""
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


def module_names(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the official weights under the names that `SamEncoder` gives them."""
    return {f"trunk.{k.replace('mlp.lin', 'mlp.fc')}": v for k, v in part.items()}


class FewHeads(nn.Module):
    """timm's attention of SAM, a few heads at a time: what it adds to the scores for relative positions takes memory by heads · cells².

    Of a tile of 1024 × 1024 pixels that is 67 MB a head. Parameters keep their names.
    """

    def __init__(self, attn: Any) -> None:
        super().__init__()
        self.num_heads: int = attn.num_heads
        self.qkv, self.proj = attn.qkv, attn.proj
        self.rel_pos_h, self.rel_pos_w = attn.rel_pos_h, attn.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, y, x, width) from (N, y, x, width)."""
        from timm.models.vision_transformer_sam import get_decomposed_rel_pos_bias

        n, height, width, _ = x.shape
        cells = height * width
        qkv = self.qkv(x).view(n, cells, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        heads = zip(*(part.split(max(1, MOST_SCORES // cells**2)) for part in qkv.flatten(1, 2)), strict=True)
        found = []
        for q, k, v in heads:  # (heads, cells, features) each
            bias = get_decomposed_rel_pos_bias(q, self.rel_pos_h, self.rel_pos_w, (height, width), (height, width))
            found.append(scaled_dot_product_attention(q, k, v, attn_mask=bias))
        joined = torch.cat(found).view(n, self.num_heads, cells, -1).transpose(1, 2)
        return self.proj(joined.reshape(n, height, width, -1))


class SamEncoder(nn.Module):
    """A vision transformer over 16 × 16 pixels; its blocks are computed for the neck only."""

    def __init__(self, trunk: nn.Module, maps: tuple[str, ...]) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.maps = maps

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the wanted maps of (N, 3, y, x) standardised colours; y and x are multiples of 16."""
        from timm.layers.pos_embed import resample_abs_pos_embed_nhwc

        patches = self.trunk.patch_embed(picture)  # (N, y/16, x/16, width)
        found = {"patch": patches.permute(0, 3, 1, 2)}
        if "neck" in self.maps:
            x = patches + resample_abs_pos_embed_nhwc(self.trunk.pos_embed, patches.shape[1:3])
            x = self.trunk.blocks(x)  # (N, y/16, x/16, width)
            found["neck"] = self.trunk.neck(x.permute(0, 3, 1, 2))  # (N, 256, y/16, x/16)
        return tuple(found[m] for m in self.maps)

    @contextmanager
    def positions_for(self, height: int, width: int) -> Iterator[None]:
        """Hold the positions of a picture of so many pixels ready: ONNX has no operation that resizes them as the network does."""
        from timm.layers.pos_embed import resample_abs_pos_embed_nhwc

        before = self.trunk.pos_embed
        with torch.no_grad():
            resized = resample_abs_pos_embed_nhwc(before, [height // PATCH, width // PATCH])
        self.trunk.pos_embed = nn.Parameter(resized, requires_grad=False)
        try:
            yield
        finally:
            self.trunk.pos_embed = before
