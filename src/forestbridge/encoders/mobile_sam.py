"""MobileSAM's image encoder, a TinyViT: from three colours to its neck at stride 16, its stem at stride 4, and its stages."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from forestbridge.encoders.layers import attention, neck

PREFIX = "image_encoder."

UNUSED = ("head.", "norm_head.")
"""What TinyViT was trained with before and MobileSAM keeps in its file."""

RENAMED = (
    (".c.", ".conv."),
    ("patch_embed.seq.0.", "patch_embed.conv1."),
    ("patch_embed.seq.2.", "patch_embed.conv2."),
)


def build_network(name: str, maps: Sequence[str], *, exportable: bool = False) -> "MobileSamEncoder":
    """Return the network without weights.

    Parameters
    ----------
    name
        "mobile_sam".
    maps
        Some of "neck", "patch", "stage1" to "stage4".
    exportable
        Whether attention is written out.
    """
    import timm

    with torch.device("cpu"), attention(exportable=exportable):  # its table of relative positions is not in the weights
        trunk: Any = timm.create_model("tiny_vit_5m_224", num_classes=0)
        del trunk.head
        trunk.stages[3].downsample.conv2.conv.stride = (1, 1)  # the last stage keeps stride 16
        return MobileSamEncoder(trunk, tuple(maps))


def encoder_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the image encoder of a checkpoint, under its official names without "image_encoder."."""
    part = {k.removeprefix(PREFIX): v for k, v in state.items() if k.startswith(PREFIX)}
    left_out = ("attention_bias_idxs", "num_batches_tracked")
    return {k: v for k, v in part.items() if not k.startswith(UNUSED) and not k.endswith(left_out)}


def module_names(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the official weights under the names that `MobileSamEncoder` gives them."""
    return {_module_name(k): v for k, v in part.items()}


def _module_name(official: str) -> str:
    if official.startswith("neck."):
        return official
    name = official
    for old, new in RENAMED:
        name = name.replace(old, new)
    if name.startswith("layers."):
        stage, rest = name.removeprefix("layers.").split(".", 1)
        if rest.startswith("downsample."):
            stage = str(
                int(stage) + 1
            )  # timm halves at the beginning of a stage, MobileSAM at the end of the one before
        name = f"stages.{stage}.{rest}"
    return f"trunk.{name}"


class MobileSamEncoder(nn.Module):
    """The stem, four stages and the neck, as far as they are wanted."""

    def __init__(self, trunk: nn.Module, maps: tuple[str, ...]) -> None:
        super().__init__()
        self.trunk: Any = trunk
        self.neck = neck(320)
        self.maps = maps
        self.depth = max(4 if m == "neck" else 0 if m == "patch" else int(m.removeprefix("stage")) for m in maps)

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the wanted maps of (N, 3, y, x) standardised colours; y and x are multiples of 16."""
        x = self.trunk.patch_embed(picture)  # (N, 64, y/4, x/4)
        found = {"patch": x}
        for n in range(self.depth):
            x = self.trunk.stages[n](x)  # (N, 320, y/16, x/16) at the end
            found[f"stage{n + 1}"] = x
        if "neck" in self.maps:
            found["neck"] = self.neck(x)
        return tuple(found[m] for m in self.maps)
