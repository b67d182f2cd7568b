"""The spec of a bioimage.io package of others: sizes of tiles that it takes, and the geometry of its maps, measured."""

import logging
import math
import re
from collections.abc import Callable, Sequence

import numpy as np

from forestbridge.archive import AxisInfo, PackageInfo
from forestbridge.encoders.package_geometry import PROBE, MapGeometry, measure_geometry, plan_halo, strides_of
from forestbridge.encoders.package_graph import PackageGraph, refused
from forestbridge.encoders.package_steps import Step
from forestbridge.errors import PackageError
from forestbridge.spec import EncoderSpec, MapSpec

_log = logging.getLogger(__name__)

PACKAGE = "package"
"""Name, in specs, of encoders that were measured on packages of others."""

VERSION = 1
"""Of the way from raw pixels to maps, and of the measuring; raised when the same package would give other values."""

TILE = 512
"""Wanted side of a tile with its halo, where the model leaves the choice."""


def measured_spec(graph: PackageGraph, steps: Sequence[Step], tile: int | None) -> EncoderSpec:
    """Return the spec of a package of others.

    Raises
    ------
    PackageError
        If its maps are on no grid of whole strides.
    ValueError
        If it does not take such a tile.
    """
    info = graph.info
    first = [_side(info, axis, 64, lambda n: n % 64 == 0, wanted=64) for axis in graph.space]
    strides = _strides(graph, first)
    step = math.lcm(*strides)
    sides = [_tile_side(info, axis, step, tile) for axis in graph.space]
    if _strides(graph, sides) != strides:
        raise PackageError(
            f"{info.path}: expected the same strides on tiles of {first} and {sides} pixels, found others; the maps are on no grid"
        )
    probe = [
        min(side, _side(info, axis, step, lambda n: n % step == 0, wanted=PROBE))
        for axis, side in zip(graph.space, sides, strict=True)
    ]
    try:
        found = measure_geometry(graph, channels=graph.channels, strides=strides, sides=sides, probe=probe)
    except ValueError as error:
        raise PackageError(f"{info.path}: {error}; such maps are no features of pixels") from error
    reaches = [g.reach for g in found]
    # A pixel at a core's edge lies between a cell of the core and one of the halo, which must see as much.
    beyond = [0 if (g.stride, g.offset) == (1, 0) else g.stride for g in found]
    seen = None if None in reaches else max(r + b for r, b in zip(reaches, beyond, strict=True) if r is not None)
    halo = plan_halo(sides, step, seen)
    if any(r is None or r > min(halo) for r in reaches):
        _log.warning(
            "%s: cells see further than the halo of %s pixels on a tile of %s: their values depend a little on where tiles lie",
            info.path,
            halo,
            sides,
        )
    return EncoderSpec(
        name=PACKAGE,
        version=VERSION,
        axes="yx",
        channels=graph.channels,
        intensity={"rule": "steps", "steps": list(steps)} if steps else {"rule": "raw"},
        tile=tuple(side - 2 * h for side, h in zip(sides, halo, strict=True)),
        halo=halo,
        options=graph.facts(),
        maps=_map_specs(graph, found, sides),
        dtype="float32",
        weights=graph.sha256,
    )


def _strides(graph: PackageGraph, sides: Sequence[int]) -> list[int]:
    """Return the stride of each map on a tile of such sides."""
    shapes = [values.shape for values in graph(np.zeros((graph.channels, *sides), np.float32))]
    found = strides_of(shapes, sides)
    for tensor, shape, stride in zip(graph.maps, shapes, found, strict=True):
        if stride is None:
            raise PackageError(
                f"{graph.info.path}: expected maps with a cell for every 1, 2, 3, ... pixels along y and x, alike, found {tensor.id!r} of "
                f"{shape[1:]} cells for a tile of {tuple(sides)} pixels; export the model with padding, so that sizes divide"
            )
    return [stride for stride in found if stride is not None]


def _side(info: PackageInfo, axis: AxisInfo, step: int, fits: Callable[[int], bool], *, wanted: int) -> int:
    """Return the largest allowed length up to `wanted` that fits, else the next one above; else the smallest allowed from 64 on."""
    if axis.size is not None:
        return axis.size
    if axis.min is None or not axis.step:
        raise refused(info, f"an axis {axis.id} whose length follows from another tensor")
    allowed = [axis.min + n * axis.step for n in range(max(wanted // axis.step, 0) + step + 2)]
    below = [n for n in allowed if fits(n) and n <= wanted]
    above = [n for n in allowed if fits(n) and n > wanted]
    return (
        below[-1] if below else above[0] if above else next((n for n in allowed if n >= min(wanted, 64)), allowed[-1])
    )


def _tile_side(info: PackageInfo, axis: AxisInfo, step: int, tile: int | None) -> int:
    """Return the side of a tile along an axis: a multiple of `step`."""
    side = _side(info, axis, step, lambda n: n % step == 0, wanted=TILE) if tile is None else tile
    allowed = (
        side == axis.size if axis.size else side >= (axis.min or 1) and (side - (axis.min or 1)) % (axis.step or 1) == 0
    )
    if side % step or not allowed:
        takes = str(axis.size) if axis.size else f"{axis.min} + n · {axis.step}"
        raise ValueError(
            f"expected for the package {info.path} a tile of {takes} pixels along {axis.id} that is a multiple of {step}, found {side}; "
            "leave the tile out, or choose such a one"
        )
    return side


def _map_specs(graph: PackageGraph, found: Sequence[MapGeometry], sides: Sequence[int]) -> tuple[MapSpec, ...]:
    """Return the maps, with names that are words and unique."""
    shapes = [values.shape for values in graph(np.zeros((graph.channels, *sides), np.float32))]
    maps: list[MapSpec] = []
    for n, (tensor, geometry, shape) in enumerate(zip(graph.maps, found, shapes, strict=True)):
        name = re.sub(r"[^0-9A-Za-z_-]+", "_", tensor.id)
        name = name if name not in {m.name for m in maps} else f"{name}_{n}"
        named = [a.channel_names for a in tensor.axes if a.type == "channel" and len(a.channel_names) == shape[0]]
        words = named[0] if named and len(set(named[0])) == shape[0] else [f"{c:03}" for c in range(shape[0])]
        channels = tuple(f"{name}.{word}" for word in words)
        maps.append(MapSpec(name, channels, geometry.stride, geometry.offset))
    return tuple(maps)
