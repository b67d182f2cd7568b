"""What several networks share: the last layers, and how attention is computed."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def neck(width: int) -> nn.Sequential:
    """Return SAM's neck: from (N, width, y, x) to (N, 256, y, x)."""
    from timm.layers.norm import LayerNorm2d

    return nn.Sequential(
        nn.Conv2d(width, 256, 1, bias=False),
        LayerNorm2d(256),
        nn.Conv2d(256, 256, 3, padding=1, bias=False),
        LayerNorm2d(256),
    )


def head_by_head(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Return softmax(q kᵀ) v, written out, of (N, heads, cells, features) each, one head after the other.

    All scores at once take memory by heads · cells², several times: of a tile of 1024 × 1024 pixels at stride 16 that is 67 MB a head.
    """
    heads = [(q[:, n] @ k[:, n].transpose(1, 2)).softmax(-1) @ v[:, n] for n in range(q.shape[1])]
    return torch.stack(heads, 1)


class HeadByHead(nn.Module):
    """timm's attention between all cells, head by head. Parameters keep their names."""

    def __init__(self, attn: Any) -> None:
        super().__init__()
        self.num_heads: int = attn.num_heads
        self.scale: float = attn.scale
        self.qkv, self.proj = attn.qkv, attn.proj

    def forward(self, x: Tensor, attn_mask: None = None, is_causal: bool = False) -> Tensor:
        """Return (N, ..., width) from (N, ..., width); timm's blocks name a mask, which these networks do without."""
        assert attn_mask is None and not is_causal
        q, k, v = self.qkv(x.flatten(1, -2)).unflatten(2, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        found = head_by_head(q * self.scale, k, v)  # (N, heads, cells, features)
        return self.proj(found.transpose(1, 2).reshape(x.shape))


@contextmanager
def attention(*, exportable: bool) -> Iterator[None]:
    """Let timm build attention as one operation, which is faster, or written out, which old runtimes know; then as it did before."""
    from timm.layers.config import set_fused_attn, use_fused_attn

    before, experimental = use_fused_attn(), use_fused_attn(experimental=True)
    set_fused_attn(not exportable)
    try:
        yield
    finally:
        set_fused_attn(before, experimental=experimental)
