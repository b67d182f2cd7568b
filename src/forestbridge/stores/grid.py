"""Geometry of a store, in integers: shards, the arrays of the maps, and which cells of a map belong to which shard.

A shard is one tile core of the image and has one owner. It is one zarr shard in the array of every map, at the same
place in every grid of shards, so that one name serves for all: "t0.z3.y1.x2" counts shards along the axes of the maps
without c. Chunks are the parts of a shard that can be read alone.
"""

import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from forestbridge.spec import EncoderSpec, MapSpec
from forestbridge.stores.base import ImageFacts
from forestbridge.tiles import Tile, plan_tiles

CORES = {"yx": ((512, 512), (256, 256), (128, 128)), "zyx": ((32, 128, 128), (32, 64, 64))}
"""Core of a shard in pixels where the encoder leaves the choice: the first whose shards stay below `SHARD_BYTES`."""

SHARD_BYTES = 192 * 2**20
"""Most bytes of a shard over all maps, since memory holds it: 512 × 512 pixels × 147 float32 features = 147 MiB."""

CHUNK_BYTES = 256 * 2**10
"""Most bytes of a chunk, so that a pixel is one small read: 32 × 32 cells × 49 float32 features = 196 KiB."""

CHUNK_CELLS = {"yx": ((32, 32), (16, 16), (8, 8)), "zyx": ((4, 16, 16), (2, 16, 16), (2, 8, 8))}
"""Cells of a chunk: the first that stays below `CHUNK_BYTES`. Thin along z, since people scribble in planes."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}")
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))}


@dataclass(frozen=True)
class Shard:
    """One unit of work.

    Attributes
    ----------
    name
        Unique in the store, e.g. "z3.y1.x2".
    index
        Its place in the grid of shards, along the axes of the maps without c.
    t, z
        Frame, and plane; z is None for encoders that work on stacks.
    tile
        Core and outer in image pixels, along the encoder's axes.
    """

    name: str
    index: tuple[int, ...]
    t: int
    z: int | None
    tile: Tile


@dataclass(frozen=True)
class MapGrid:
    """The array of one map.

    Attributes
    ----------
    spec
        Name, channels, stride and offset of the map.
    axes
        A subset of "tczyx" in this order, with c.
    shape, chunks, shards
        In cells, along `axes`; c is never divided.
    dtype
        Of the stored features.
    """

    spec: MapSpec
    axes: str
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...]
    dtype: str

    @property
    def path(self) -> str:
        """Where the array lies in the store."""
        return f"features/{self.spec.name}/0"

    def region(self, shard: Shard) -> tuple[slice, ...]:
        """Return the cells of a shard, one slice per axis."""
        index = [0 if a == "c" else shard.index[self.axes.replace("c", "").index(a)] for a in self.axes]
        return tuple(slice(i * s, min((i + 1) * s, n)) for i, s, n in zip(index, self.shards, self.shape, strict=True))

    def shard_file(self, index: Sequence[int]) -> str:
        """Return the file of the shard at `index` (without c), relative to the store."""
        key = list(index)
        key.insert(self.axes.index("c"), 0)
        return "/".join([self.path, "c", *map(str, key)])


@dataclass(frozen=True)
class StoreGrid:
    """The geometry of a store: everything that follows from image, spec and core."""

    spec: EncoderSpec
    image: ImageFacts
    core: tuple[int, ...]
    maps: tuple[MapGrid, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Spatial shape of the image along the encoder's axes."""
        return tuple(self.image.sizes[a.upper()] for a in self.spec.axes)

    def shards(self) -> Iterator[Shard]:
        """Yield every shard in C order."""
        sizes = self.image.sizes
        planes = [None] if self.spec.axes == "zyx" else list(range(sizes["Z"]))
        for t in range(sizes["T"]):
            for z in planes:
                for tile in plan_tiles(self.shape, self.core, self.spec.halo):
                    place = {a: c.start // n for a, c, n in zip(self.spec.axes, tile.core, self.core, strict=True)}
                    place = {"t": t, "z": z, **place}
                    index = tuple(place[a] or 0 for a in self.axes)
                    yield Shard(self.shard_name(index), index, t, z, tile)

    @property
    def axes(self) -> str:
        """Axes of every map, without c."""
        return self.maps[0].axes.replace("c", "")

    @property
    def n_shards(self) -> int:
        """Number of shards."""
        first = self.maps[0]
        return math.prod(-(-n // s) for n, s in zip(first.shape, first.shards, strict=True))

    def shard_name(self, index: Sequence[int]) -> str:
        """Return the name of the shard at a place of the grid."""
        return ".".join(f"{a}{i}" for a, i in zip(self.axes, index, strict=True))

    def shard_bytes(self, shard: Shard) -> int:
        """Return the uncompressed size of a shard over all maps, as whole chunks."""
        total = 0
        for m in self.maps:
            cells = [-(-(r.stop - r.start) // c) * c for r, c in zip(m.region(shard), m.chunks, strict=True)]
            total += math.prod(cells) * np.dtype(m.dtype).itemsize
        return total


def plan_grid(spec: EncoderSpec, image: ImageFacts, *, core: Sequence[int] | None = None) -> StoreGrid:
    """Lay out a store.

    Parameters
    ----------
    core
        Of an existing store; chosen here for a new one.

    Raises
    ------
    ValueError
        If the core is no multiple of a map's stride, or a map's name is no folder name on every system.
    """
    check_names([m.name for m in spec.maps], what="map")
    chosen = tuple(core) if core is not None else _choose_core(spec)
    axes = "".join(a for a in "tczyx" if a == "c" or a.upper() in image.axes or a in spec.axes)
    maps = (_plan_map(spec, m, dtype, image, chosen, axes) for m, dtype in zip(spec.maps, spec.dtypes, strict=True))
    return StoreGrid(spec, image, chosen, tuple(maps))


def check_names(names: Sequence[str], *, what: str) -> None:
    """Refuse names that are no folder names on every system.

    Raises
    ------
    ValueError
        If a name has other characters than letters, digits and ``_ . + -``, is reserved by Windows, or two differ by
        case only.
    """
    for name in names:
        if not _NAME.fullmatch(name) or name.split(".")[0].lower() in _RESERVED or name.endswith((".", ".partial")):
            proposal = re.sub(r"[^A-Za-z0-9_+-]+", "_", name).strip("_") or what
            raise ValueError(
                f"expected a {what} name of letters, digits and _ . + - that every system takes as a folder's name, "
                f"found {name!r}; use {what + '_' + proposal if proposal.lower() in _RESERVED else proposal!r}"
            )
    if len({n.lower() for n in names}) != len(names):
        raise ValueError(f"expected {what} names that differ by more than upper and lower case, found {list(names)}")


def _choose_core(spec: EncoderSpec) -> tuple[int, ...]:
    if spec.tile is not None:
        return spec.tile
    step = math.lcm(*(math.ceil(m.stride) for m in spec.maps))
    grown = [(*core[:-2], *(-(-n // step) * step for n in core[-2:])) for core in CORES[spec.axes]]
    per_pixel = sum(
        len(m.channels) * np.dtype(dtype).itemsize / m.stride**2
        for m, dtype in zip(spec.maps, spec.dtypes, strict=True)
    )
    fitting = [core for core in grown if math.prod(core) * per_pixel <= SHARD_BYTES]
    return fitting[0] if fitting else grown[-1]


def _plan_map(
    spec: EncoderSpec, m: MapSpec, dtype: str, image: ImageFacts, core: tuple[int, ...], axes: str
) -> MapGrid:
    per_core = [n / m.stride for n in core[-2:]]
    if any(abs(n - round(n)) > 1e-9 for n in per_core):
        raise ValueError(
            f"expected tiles of a whole number of cells, found tiles of {core[-2:]} pixels and map {m.name!r} of "
            f"stride {m.stride:g}"
        )
    shard = dict(zip(spec.axes, (*core[:-2], *map(round, per_core)), strict=True))
    itemsize = np.dtype(dtype).itemsize
    sizes = [c for c in CHUNK_CELLS[spec.axes] if math.prod(c) * len(m.channels) * itemsize <= CHUNK_BYTES]
    wanted = dict(zip(spec.axes, sizes[0] if sizes else CHUNK_CELLS[spec.axes][-1], strict=True))
    chunk = {a: _nearest_divisor(n, wanted[a]) for a, n in shard.items()}
    features = {"c": len(m.channels)}
    pixels = {a.lower(): n for a, n in image.sizes.items()}
    shape = pixels | {a: m.n_cells(pixels[a]) for a in "yx"} | features
    one = dict.fromkeys(axes, 1)
    return MapGrid(
        spec=m,
        axes=axes,
        shape=tuple(shape[a] for a in axes),
        chunks=tuple((one | chunk | features)[a] for a in axes),
        shards=tuple((one | shard | features)[a] for a in axes),
        dtype=dtype,
    )


def _nearest_divisor(number: int, wanted: int) -> int:
    """Return the divisor of `number` that is nearest to `wanted` by ratio."""
    divisors = [d for d in range(1, number + 1) if number % d == 0]
    return min(divisors, key=lambda d: abs(math.log(d / wanted)))
