"""Layers that several networks end with, and how their attention is computed."""

from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def neck(width: int) -> nn.Sequential:
    """Return SAM's neck: from (N, width, y, x) to (N, 256, y, x)."""
    from timm.layers.norm import LayerNorm2d

    return nn.Sequential(
        nn.Conv2d(width, 256, 1, bias=False),
        LayerNorm2d(256),
        nn.Conv2d(256, 256, 3, padding=1, bias=False),
        LayerNorm2d(256),
    )


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
