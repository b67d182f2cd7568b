"""SAM's image encoder, ViT-H, and ViT-B as microSAM trained it: from three colours to neck and patch embedding, both at stride 16."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate, pad, scaled_dot_product_attention

from forestbridge.encoders.layers import attention, head_by_head

MODELS = {
    "sam_vit_h": "samvit_huge_patch16",
    "micro_sam_lm": "samvit_base_patch16",
    "micro_sam_em": "samvit_base_patch16",
}
"""timm's names."""

PREFIX = "image_encoder."

PATCH = 16
"""Side of what becomes a token, in pixels of the picture."""


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
    for block in trunk.blocks:
        block.attn = FoldedPositions(block.attn, exportable=exportable)
    return SamEncoder(trunk, tuple(maps))


def encoder_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image encoder of a checkpoint of SAM, under its official names without "image_encoder."."""
    return {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}


def module_names(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the official weights under the names that `SamEncoder` gives them."""
    return {f"trunk.{k.replace('mlp.lin', 'mlp.fc')}": v for k, v in part.items()}


class FoldedPositions(nn.Module):
    """timm's attention of SAM, its relative positions folded into the products of queries and keys.

    What is added to the score of cells (y, x) and (y', x') is rel_h(q)[y'] + rel_w(q)[x']. With rel_h and rel_w behind a query's features,
    and behind a key's the rows and columns of two unit matrices, one product gives both, and no array of cells × cells is needed: of a
    tile of 1024 × 1024 pixels that would be 67 MB a head. What is exported writes the products out, head by head. Parameters keep
    their names.
    """

    def __init__(self, attn: Any, *, exportable: bool = False) -> None:
        super().__init__()
        self.exportable = exportable
        self.num_heads: int = attn.num_heads
        self.qkv, self.proj = attn.qkv, attn.proj
        self.rel_pos_h, self.rel_pos_w = attn.rel_pos_h, attn.rel_pos_w

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, y, x, width) from (N, y, x, width)."""
        n, height, width, _ = x.shape
        q, k, v = (
            self.qkv(x).view(n, height * width, 3, self.num_heads, -1).permute(2, 0, 3, 1, 4)
        )  # (N, heads, cells, f)
        features = q.shape[-1]
        cells = q.unflatten(2, (height, width))
        down = torch.einsum("nmyxf,ykf->nmyxk", cells, _by_distance(self.rel_pos_h, height))
        along = torch.einsum("nmyxf,xkf->nmyxk", cells, _by_distance(self.rel_pos_w, width))
        # What is traced keeps the device that it saw; `type_as` is an operation of its own, and follows the module to another.
        rows = torch.eye(height, device=k.device).type_as(k).repeat_interleave(width, dim=0)  # (cells, y)
        columns = torch.eye(width, device=k.device).type_as(k).repeat(height, 1)  # (cells, x)
        places = torch.cat([rows, columns], dim=1).expand(*k.shape[:2], -1, -1)
        q = torch.cat([q * features**-0.5, down.flatten(2, 3), along.flatten(2, 3)], dim=-1)
        k = torch.cat([k, places], dim=-1)
        if self.exportable:
            found = head_by_head(q, k, v)  # (N, heads, cells, f)
        else:  # the fast kernels want as many features of values as of keys
            found = scaled_dot_product_attention(q, k, pad(v, (0, height + width)), scale=1.0)[..., :features]
        return self.proj(found.transpose(1, 2).reshape(n, height, width, -1))


def _by_distance(positions: Tensor, size: int) -> Tensor:
    """Return (size, size, f) from (n, f): the row for how far the first cell lies behind the second.

    Tables of another grid are interpolated, as SAM does. Indices are made where the table is: a GPU would wait for those of the CPU.
    """
    if len(positions) != 2 * size - 1:
        positions = interpolate(positions.T[None], 2 * size - 1, mode="linear")[0].T
    places = torch.arange(size, device=positions.device)
    return positions[places[:, None] - places + size - 1]


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
