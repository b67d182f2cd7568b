"""Small real encoders, images for them, and their features computed in one piece: what store tests compare with."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from forestbridge.image import Image, as_image
from forestbridge.spec import EncoderSpec, MapSpec


@dataclass(frozen=True)
class LocalEncoder:
    """Multiples of the pixel and of its cross-shaped neighbourhood's sum: stride 1, halo 1."""

    spec: EncoderSpec

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return (F, ...) of the core; the border reflects as on the whole image, so that tiling changes nothing."""
        total = tile.sum(axis=0)
        padded = np.pad(total, 1, mode="edge")
        inner = tuple(slice(1, -1) for _ in core)
        cross = total.copy()
        for axis in range(total.ndim):
            for step in (slice(0, -2), slice(2, None)):
                cross = cross + padded[(*inner[:axis], step, *inner[axis + 1 :])]
        maps = [(total if k % 2 == 0 else cross) * np.float32(k + 1) for k in range(self.spec.n_features)]
        return (np.stack(maps)[(slice(None), *core)],)


@dataclass(frozen=True)
class PoolingEncoder:
    """Block means in two maps of stride 4 and 16, stored in float16: tiles of 64 pixels, no halo."""

    spec: EncoderSpec

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return one (F, y, x) array per map; the last cells of an image repeat its border."""
        pixels = tile[(slice(None), *core)].mean(axis=0)
        maps = []
        for m in self.spec.maps:
            s = int(m.stride)
            grown = np.pad(pixels, [(0, -n % s) for n in pixels.shape], mode="edge")
            cells = grown.reshape(grown.shape[0] // s, s, grown.shape[1] // s, s).mean(axis=(1, 3))
            maps.append(np.stack([cells * np.float32(k + 1) for k in range(len(m.channels))]))
        return tuple(maps)


def local_encoder(
    features: int = 3, *, tile: tuple[int, ...] | None = (32, 32), axes: Literal["yx", "zyx"] = "yx", channels: int = 1
) -> LocalEncoder:
    """Return an encoder of stride 1; with a small `tile` small images have many shards."""
    names = tuple(f"local {k}" for k in range(features))
    spec = EncoderSpec(
        name="local",
        version=1,
        axes=axes,
        channels=channels,
        halo=(1,) * len(axes),
        maps=(MapSpec("local", names),),
        intensity={"rule": "raw"},
        options={},
        tile=tile,
    )
    return LocalEncoder(spec)


def pooling_encoder(*, channels: int = 1, fine: int = 2, coarse: int = 3) -> PoolingEncoder:
    """Return an encoder with two strided float16 maps."""
    maps = (
        MapSpec("pool.fine", tuple(f"fine {k}" for k in range(fine)), stride=4, offset=1.5),
        MapSpec("pool.coarse", tuple(f"coarse {k}" for k in range(coarse)), stride=16, offset=7.5),
    )
    spec = EncoderSpec(
        name="pool",
        version=1,
        axes="yx",
        channels=channels,
        halo=(0, 0),
        maps=maps,
        intensity={"rule": "raw"},
        options={},
        tile=(64, 64),
        dtype="float16",
    )
    return PoolingEncoder(spec)


def noise_image(axes: str, shape: tuple[int, ...], *, seed: int = 0) -> Image:
    """Return an image of random bytes with known pixel sizes and a name."""
    pixels = np.random.default_rng(seed).integers(0, 200, shape).astype(np.uint8)
    sizes = {"z": 2.0, "y": 0.5, "x": 0.25}
    known = {a: v for a, v in sizes.items() if a.upper() in axes}
    interval = 30.0 if "T" in axes else None
    return Image(as_image(pixels, axes=axes).data, axes, pixel_size=known, frame_interval=interval, source="noise.tif")


def whole_maps(image: Image, encoder: LocalEncoder | PoolingEncoder, t: int, z: int | None) -> tuple[NDArray, ...]:
    """Return the maps of a whole plane or stack in the stored dtype, computed in one piece."""
    shape = [image.sizes[a.upper()] for a in encoder.spec.axes]
    everything = tuple(slice(0, n) for n in shape)
    maps = encoder.encode(image.region(everything, t=t, z=z), everything)
    return tuple(values.astype(encoder.spec.dtype) for values in maps)


def pixel_features(maps: tuple[NDArray, ...], spec: EncoderSpec, y: NDArray, x: NDArray) -> NDArray[np.float64]:
    """Return (N, F) by bilinear interpolation, written down as the definition says and in float64."""
    columns = []
    for m, values in zip(spec.maps, maps, strict=True):
        v = np.clip((y - m.offset) / m.stride, 0, values.shape[1] - 1)
        u = np.clip((x - m.offset) / m.stride, 0, values.shape[2] - 1)
        result = np.zeros((len(y), len(m.channels)))
        for row in range(values.shape[1]):
            for column in range(values.shape[2]):
                weight = np.maximum(0, 1 - np.abs(v - row)) * np.maximum(0, 1 - np.abs(u - column))  # (N,)
                touched = weight > 0
                result[touched] += weight[touched, None] * values[:, row, column].astype(np.float64)
        columns.append(result)
    return np.concatenate(columns, axis=1)


class CountingEncoder:
    """An encoder that counts how often it is asked."""

    def __init__(self, encoder: LocalEncoder) -> None:
        self.encoder = encoder
        self.calls = 0

    @property
    def spec(self):
        return self.encoder.spec

    def encode(self, tile, core):
        self.calls += 1
        return self.encoder.encode(tile, core)
