"""A deep encoder with its forest as torch modules: raw intensities (1, C, T, T) in, class probabilities (1, K, T, T) out.

The maps are looked up at the pixels strip by strip of rows, so that the features of all pixels are never in memory together.
"""

import torch
from torch import Tensor, nn

from forestbridge.graphs.strips import MapLines
from forestbridge.graphs.torch_forest import ForestModule

STRIP = 16384
"""Pixels at a time."""


class StoredMaps(nn.Module):
    """A network whose maps are rounded to what is stored."""

    def __init__(self, module: nn.Module, dtype: str) -> None:
        super().__init__()
        self.module = module
        self.rounds = dtype == "float16"

    def forward(self, raw: Tensor) -> tuple[Tensor, ...]:
        """Return one (N, F, t, t) float32 per map."""
        maps = self.module(raw)
        return tuple(m.to(torch.float16).to(torch.float32) for m in maps) if self.rounds else tuple(maps)


class UsedMaps(nn.Module):
    """The channels of the maps that a forest looks at, as a list that can be compiled."""

    def __init__(self, stored: StoredMaps, lines: list[MapLines]) -> None:
        super().__init__()
        self.stored = stored
        self.chosen = [(line.index, torch.from_numpy(line.channels)) for line in lines]

    def forward(self, raw: Tensor) -> list[Tensor]:
        """Return one (F, t, t) float32 per map that is used."""
        maps = self.stored(raw)
        return [maps[n][0].index_select(0, channels) for n, channels in self.chosen]


class MapSampler(nn.Module):
    """Bilinear interpolation of one map at rows of pixels."""

    top: Tensor
    bottom: Tensor
    down: Tensor
    left: Tensor
    right: Tensor
    along: Tensor

    def __init__(self, lines: MapLines) -> None:
        super().__init__()
        for name, values in zip(("top", "bottom", "down"), lines.rows, strict=True):
            self.register_buffer(name, torch.from_numpy(values))
        for name, values in zip(("left", "right", "along"), lines.columns, strict=True):
            self.register_buffer(name, torch.from_numpy(values))

    def forward(self, cells: Tensor, start: int, n: int) -> Tensor:
        """Return the (F, n, T) features of n rows of pixels from the (F, t, t) cells."""
        down = self.down.narrow(0, start, n).unsqueeze(1)
        top = cells.index_select(1, self.top.narrow(0, start, n))
        bottom = cells.index_select(1, self.bottom.narrow(0, start, n))
        rows = (1 - down) * top + down * bottom  # (F, n, t)
        return (1 - self.along) * rows.index_select(2, self.left) + self.along * rows.index_select(2, self.right)


class DeepFusedModule(nn.Module):
    """Network, interpolation and forest.

    Parameters
    ----------
    network
        `UsedMaps`, traced.
    forest
        Over the used channels.
    """

    side: int
    strip: int

    def __init__(self, network: nn.Module, lines: list[MapLines], forest: ForestModule) -> None:
        super().__init__()
        self.network = network
        self.samplers = nn.ModuleList(MapSampler(line) for line in lines)
        self.forest = forest
        self.side = len(lines[0].rows.first)
        self.strip = max(1, STRIP // len(lines[0].columns.first))

    def forward(self, raw: Tensor) -> Tensor:
        """Return the probabilities (1, K, T, T) of the raw intensities (1, C, T, T)."""
        maps: list[Tensor] = self.network(raw)
        strips: list[Tensor] = []
        for start in range(0, self.side, self.strip):
            n = min(self.strip, self.side - start)
            features: list[Tensor] = []
            for i, sampler in enumerate(self.samplers):
                features.append(sampler(maps[i], start, n))
            strips.append(self.forest(torch.cat(features, 0).unsqueeze(0)))  # (1, K, n, T)
        return torch.cat(strips, 2)
