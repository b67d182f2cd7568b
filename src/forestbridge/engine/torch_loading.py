"""From maps that lie on a device to a strip of features, on the device: copied where the cells are the pixels, otherwise interpolated.

`forestbridge.engine.loading` has the formula; here are the same float32 operations in the same order, one by one, so that no product
and sum are rounded together: the same bits.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from forestbridge.engine.blocks import MapPart, Region, bad_features_text
from forestbridge.tiles import interpolation_cells

PIECE = 2**24
"""Values that are interpolated in one go: 64 MiB for each of a handful of intermediate results."""


def load_strip(maps: Sequence[MapPart[Tensor]], used: NDArray[np.integer], region: Region) -> Tensor:
    """Return the used features of some pixels.

    Parameters
    ----------
    maps
        With (F, rows, columns) float32 or float16 cells; they hold the cells around the pixels.
    used
        (U,) ascending numbers of the features, counted over all maps.
    region
        The rows and columns of pixels.

    Returns
    -------
    features
        (U, rows · columns) float32.
    """
    n_rows, n_columns = (pixels.stop - pixels.start for pixels in region)
    device = maps[0].cells.device
    result = torch.empty((len(used), n_rows, n_columns), dtype=torch.float32, device=device)
    start, at = 0, 0
    for part in maps:
        n = len(part.cells)
        numbers = torch.from_numpy(used[(used >= start) & (used < start + n)] - start).to(device, torch.int64)
        target = result[at : at + len(numbers)]
        if part.is_plain:
            rows, columns = (slice(p.start - f, p.stop - f) for p, f in zip(region, part.first, strict=True))
            target.copy_(part.cells[:, rows, columns].index_select(0, numbers))
        else:
            _interpolate(part, numbers, region, target)
        start, at = start + n, at + len(numbers)
    return result.reshape(len(used), n_rows * n_columns)


def _interpolate(part: MapPart[Tensor], features: Tensor, region: Region, target: Tensor) -> None:
    """Write the (f, rows, columns) values of some features at pixels between cells, some features at a time."""
    rows, columns = (_lines(part, axis, pixels) for axis, pixels in enumerate(region))
    tallest = max(target.shape[1], rows.cells.stop - rows.cells.start)
    at_once = max(1, PIECE // (tallest * target.shape[2]))
    for numbers, result in zip(features.split(at_once), target.split(at_once), strict=True):
        cells = part.cells[:, rows.cells, columns.cells]
        values = cells.index_select(0, numbers).float()  # (f, rows of cells, columns of cells)
        left, right = values.index_select(2, columns.first), values.index_select(2, columns.second)
        across = (1 - columns.weight) * left + columns.weight * right  # (f, rows of cells, columns)
        above, below = across.index_select(1, rows.first), across.index_select(1, rows.second)
        result.copy_((1 - rows.weight)[:, None] * above + rows.weight[:, None] * below)


class _Lines(NamedTuple):
    """Between which lines of cells the lines of pixels along one axis lie.

    Attributes
    ----------
    cells
        The lines of cells that are needed.
    first, second
        (n,) int64: counted from there.
    weight
        (n,) float32: of the second one.
    """

    cells: slice
    first: Tensor
    second: Tensor
    weight: Tensor


def _lines(part: MapPart[Tensor], axis: int, pixels: slice) -> _Lines:
    positions = np.arange(pixels.start, pixels.stop)
    first, second, weight = interpolation_cells(positions, part.stride[axis], part.offset[axis], part.size[axis])
    begin = int(first[0])
    cells = slice(begin - part.first[axis], int(second[-1]) + 1 - part.first[axis])
    return _Lines(cells, *(torch.from_numpy(a).to(part.cells.device) for a in (first - begin, second - begin, weight)))


def require_finite(maps: Sequence[MapPart[Tensor]]) -> None:
    """Refuse features that are NaN or infinite; the cells stay on the device unless they are refused.

    Raises
    ------
    ValueError
        With their count and the first place.
    """
    for n, part in enumerate(maps):
        smallest, largest = torch.aminmax(part.cells)  # NaN if one is NaN
        if not (smallest.isfinite() & largest.isfinite()).item():
            raise ValueError(bad_features_text(part.cells.cpu().numpy(), f" of map {n}" if len(maps) > 1 else ""))
