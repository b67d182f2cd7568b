"""Cellpose's cyto3: the path down of its U-Net, from two channels to features at strides 1, 2, 4 and 8.

Each level adds to a 1 × 1 projection of its input what two convolutions make of it, and then once more; before each convolution stand
batch normalisation and, except in the projection, a rectifier. Levels are joined by maxima over 2 × 2 pixels.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

WIDTHS = (2, 32, 64, 128, 256)
"""Channels of the input and of the levels."""

NAMES = ("s1", "s2", "s4", "s8")
"""Of the maps, one per level."""


def build_network(name: str, maps: Sequence[str], *, exportable: bool = False) -> "PathDown":
    """Return the network without weights.

    Parameters
    ----------
    name
        "cellpose_cyto3".
    maps
        Those of `NAMES` that are wanted.
    exportable
        Changes nothing: it has no attention.
    """
    return PathDown(tuple(maps))


def encoder_part(state: Mapping[str, Any]) -> dict[str, Any]:
    """Return the path down of a checkpoint: of the whole network, where its names begin with "downsample.", or of it alone.

    Returns
    -------
    state
        Official names as in "down.res_down_0.proj.0.weight".
    """
    whole = {k.removeprefix("downsample."): v for k, v in state.items() if k.startswith("downsample.")}
    return {k: v for k, v in (whole or dict(state)).items() if not k.endswith("num_batches_tracked")}


def module_names(part: Mapping[str, Any]) -> dict[str, Any]:
    """Return the official weights under the names that `PathDown` gives them."""
    return {k.replace("down.res_down_", "levels.").replace("conv.conv_", "convolutions."): v for k, v in part.items()}


class PathDown(nn.Module):
    """The levels; those below the coarsest wanted map are not computed."""

    def __init__(self, maps: tuple[str, ...]) -> None:
        super().__init__()
        self.maps = maps
        self.levels = nn.ModuleList(Level(*widths) for widths in pairwise(WIDTHS))
        self.depth = max(NAMES.index(m) for m in maps) + 1

    def forward(self, picture: Tensor) -> tuple[Tensor, ...]:
        """Return the wanted maps of (N, 2, y, x) intensities between 0 and 1; y and x are multiples of 8."""
        found, x = {}, picture
        for n in range(self.depth):
            x = self.levels[n](functional.max_pool2d(x, 2) if n else x)  # (N, 32·2ⁿ, y/2ⁿ, x/2ⁿ)
            found[NAMES[n]] = x
        return tuple(found[m] for m in self.maps)


class Level(nn.Module):
    """A residual block of four convolutions."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.BatchNorm2d(inputs), nn.Conv2d(inputs, outputs, 1))
        self.convolutions = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(n), nn.ReLU(), nn.Conv2d(n, outputs, 3, padding=1))
            for n in (inputs, outputs, outputs, outputs)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return (N, outputs, y, x) of (N, inputs, y, x)."""
        first, second, third, fourth = self.convolutions
        x = self.proj(x) + second(first(x))
        return x + fourth(third(x))
