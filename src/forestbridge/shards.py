"""From an image and an encoder to the features of shards, as a store keeps them: one after the other, in threads, or in batches."""

import hashlib
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.base import BatchEncoder, Encoder
from forestbridge.encoders.features import batches
from forestbridge.encoders.intensity import read_pixels
from forestbridge.errors import StoreError
from forestbridge.image import Image
from forestbridge.stores.grid import MapGrid, Shard, StoreGrid
from forestbridge.threads import ahead, as_ready, in_order

READERS = 4
"""Threads that read tiles ahead of an encoder which takes several at once."""

BATCHES = 2
"""Batches on their way through such an encoder: while the maps of one come from the GPU, it computes the next."""


@dataclass(frozen=True)
class ComputedShard:
    """A shard that is computed and not yet written.

    Attributes
    ----------
    input
        sha256 of the pixels that the encoder got.
    maps
        (F, y, x) or (F, z, y, x) as the encoder gave them, one per map.
    seconds
        That it took.
    """

    shard: Shard
    input: str
    maps: tuple[NDArray, ...]
    seconds: float


def compute_shards(
    image: Image, encoder: Encoder, grid: StoreGrid, todo: Sequence[Shard], *, jobs: int
) -> Generator[ComputedShard, None, None]:
    """Yield the shards as they are ready; at most `jobs` wait or run at the same time, so that memory stays bounded."""
    if isinstance(encoder, BatchEncoder):
        yield from ahead(_compute_batches(image, encoder, grid, todo, jobs=jobs))
        return
    yield from as_ready(partial(_compute, image, encoder, grid), todo, jobs)


def _compute(image: Image, encoder: Encoder, grid: StoreGrid, shard: Shard) -> ComputedShard:
    start = time.perf_counter()
    pixels, core = read_shard(image, grid, shard)
    maps = encoder.encode(pixels, core)
    return ComputedShard(shard, pixels_hash(pixels), maps, time.perf_counter() - start)


def _compute_batches(
    image: Image, encoder: BatchEncoder, grid: StoreGrid, todo: Sequence[Shard], *, jobs: int
) -> Generator[ComputedShard, None, None]:
    """Yield the shards in order; while a batch is computed, threads read the next tiles."""

    def read(shard: Shard) -> tuple[Shard, str, tuple[NDArray[np.float32], tuple[slice, ...]]]:
        pixels, core = read_shard(image, grid, shard)
        return shard, pixels_hash(pixels), (pixels, core)

    def encode(batch: list[Any]) -> tuple[list[Any], list[tuple[NDArray, ...]], float]:
        start = time.perf_counter()
        encoded = encoder.encode_batch([tile for _, _, tile in batch])
        return batch, encoded, (time.perf_counter() - start) / len(batch)

    at_once = 1 if encoder.batch == 1 else BATCHES
    with (
        closing(in_order(read, todo, max(jobs, READERS))) as tiles,
        closing(in_order(encode, batches(tiles, encoder), at_once)) as results,
    ):
        for batch, encoded, seconds in results:
            for (shard, pixels, _), maps in zip(batch, encoded, strict=True):
                yield ComputedShard(shard, pixels, maps, seconds)


def stored_maps(result: ComputedShard, grid: StoreGrid) -> tuple[NDArray, ...]:
    """Return what the encoder gave in the stored dtypes.

    Raises
    ------
    ValueError, StoreError
        As `_to_stored`, or it gave another number of maps.
    """
    if len(result.maps) != len(grid.maps):
        raise ValueError(f"expected {len(grid.maps)} maps from {grid.spec}, found {len(result.maps)}")
    return tuple(_to_stored(values, grid, m, result.shard) for m, values in zip(grid.maps, result.maps, strict=True))


def read_shard(image: Image, grid: StoreGrid, shard: Shard) -> tuple[NDArray[np.float32], tuple[slice, ...]]:
    """Return what the encoder gets: core and halo inside the image, and where the core lies in it."""
    image_slices, core = shard.tile.inside(grid.shape)
    return read_pixels(image, grid.spec, image_slices, t=shard.t, z=shard.z), core


def _to_stored(values: NDArray, grid: StoreGrid, m: MapGrid, shard: Shard) -> NDArray:
    """Return (F, ...) values in the stored dtype; refuse what is not finite there.

    Raises
    ------
    ValueError
        If the encoder returned another shape than its spec says.
    StoreError
        If a value is NaN or infinite, or overflows the stored dtype.
    """
    region = dict(zip(m.axes, m.region(shard), strict=True))
    shape = tuple(region[a].stop - region[a].start for a in "c" + grid.spec.axes)
    if values.shape != shape:
        raise ValueError(
            f"expected map {m.spec.name!r} of shard {shard.name} as {shape} from {grid.spec}, found {values.shape}"
        )
    if not _all_finite(values):
        raise StoreError(
            _bad_values_text(~np.isfinite(values), "finite features", "NaN or infinite values", grid, m, shard)
        )
    with np.errstate(over="ignore"):
        stored = np.ascontiguousarray(values, dtype=np.dtype(m.dtype).newbyteorder("<"))
    if stored.dtype != values.dtype and not _all_finite(stored):
        limit = f"features up to {np.finfo(m.dtype).max:g}, the largest {m.dtype}"
        raise StoreError(
            _bad_values_text(
                ~np.isfinite(stored), limit, f"values beyond, up to {np.abs(values).max():g}", grid, m, shard
            )
        )
    return stored


def _all_finite(values: NDArray) -> bool:
    """Whether no value is NaN or infinite; float16 by its bits, since processors do not calculate with it."""
    if values.dtype == np.float16:
        exponent = np.float16(np.inf).view(np.uint16)
        return bool(((values.view(np.uint16) & exponent) != exponent).all())
    return bool(np.isfinite(values).all())


def _bad_values_text(
    bad: NDArray[np.bool_], expected: str, found: str, grid: StoreGrid, m: MapGrid, shard: Shard
) -> str:
    feature, *cell = np.argwhere(bad)[0].tolist()
    starts = {a: r.start for a, r in zip(m.axes, m.region(shard), strict=True)}
    place = " ".join(f"{a}={starts[a] + i}" for a, i in zip(grid.spec.axes, cell, strict=True))
    return (
        f"expected {expected} from {grid.spec}, found {int(bad.sum())} {found} in shard {shard.name} of map "
        f"{m.spec.name!r}, the first in feature {m.spec.channels[feature]!r} at cell {place}; check the image "
        "there, or use another encoder"
    )


def pixels_hash(pixels: NDArray[np.float32]) -> str:
    """Return the sha256 of a shard's input with its shape."""
    digest = hashlib.sha256(repr(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels, dtype="<f4").data)
    return digest.hexdigest()
