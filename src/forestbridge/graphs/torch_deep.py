"""An encoder of fixed tiles with its forest as torch modules: raw intensities (1, C, T, T) in, class probabilities (1, K, T, T) out.

The maps are looked up at the pixels strip by strip of rows, so that the features of all pixels are never in memory together.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from forestbridge.graphs.strips import Lines, MapLines
from forestbridge.graphs.torch_filters import FilterBankModule
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


class UsedFilters(nn.Module):
    """The features of a filter bank that a forest looks at."""

    channels: Tensor

    def __init__(self, bank: FilterBankModule, channels: NDArray[np.int64]) -> None:
        super().__init__()
        self.bank = bank
        self.register_buffer("channels", torch.from_numpy(channels))

    def forward(self, raw: Tensor) -> list[Tensor]:
        """Return one (F, T, T) float32."""
        return [self.bank(raw)[0].index_select(0, self.channels)]


class Window(nn.Module):
    """A network that sees the middle of a package's tile.

    Parameters
    ----------
    network
        `UsedMaps`, traced.
    inset, sides
        Of `TilePart`.
    """

    top: int
    left: int
    height: int
    width: int

    def __init__(self, network: nn.Module, inset: tuple[int, int], sides: tuple[int, int]) -> None:
        super().__init__()
        self.network = network
        self.top, self.left = inset
        self.height, self.width = sides

    def forward(self, raw: Tensor) -> list[Tensor]:
        """Return one (F, t, t) float32 per map that is used."""
        maps: list[Tensor] = self.network(raw.narrow(2, self.top, self.height).narrow(3, self.left, self.width))
        return maps


class Parts(nn.Module):
    """Several encoders on one tile."""

    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(parts)

    def forward(self, raw: Tensor) -> list[Tensor]:
        """Return the used maps of all parts, in their order."""
        maps: list[Tensor] = []
        for part in self.parts:
            maps.extend(part(raw))
        return maps


class PixelRows(nn.Module):
    """Rows of a map whose cells are the pixels."""

    def forward(self, cells: Tensor, start: int, n: int) -> Tensor:
        """Return the (F, n, T) features of n rows of pixels from the (F, T, T) cells."""
        return cells.narrow(1, start, n)


class MapSampler(nn.Module):
    """Bilinear interpolation of one map at rows of pixels."""

    top: Tensor
    bottom: Tensor
    down: Tensor
    left: Tensor
    right: Tensor
    along: Tensor

    def __init__(self, rows: Lines, columns: Lines) -> None:
        super().__init__()
        for name, values in zip(("top", "bottom", "down"), rows, strict=True):
            self.register_buffer(name, torch.from_numpy(values))
        for name, values in zip(("left", "right", "along"), columns, strict=True):
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
        `UsedMaps`, traced, or `Parts`.
    lines
        One per map that it gives.
    forest
        Over the used channels.
    sides
        Rows and columns of a tile.
    """

    side: int
    strip: int

    def __init__(self, network: nn.Module, lines: list[MapLines], forest: ForestModule, sides: Sequence[int]) -> None:
        super().__init__()
        self.network = network
        self.samplers = nn.ModuleList(_sampler(line) for line in lines)
        self.forest = forest
        self.side = sides[0]
        self.strip = max(1, STRIP // sides[1])

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


def _sampler(line: MapLines) -> nn.Module:
    """Return what looks a map up at rows of pixels."""
    return PixelRows() if line.rows is None or line.columns is None else MapSampler(line.rows, line.columns)
