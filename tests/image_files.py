"""Images that are written for tests, and the check that they are read as they are."""

from pathlib import Path
from typing import Any

import numpy as np
import zarr

from forestbridge.image import Image, read_image

RNG = np.random.default_rng(0)
PLANE = RNG.integers(0, 250, (70, 90)).astype(np.uint8)
STACK = RNG.integers(0, 60000, (5, 40, 50)).astype(np.uint16)
SERIES = RNG.integers(0, 60000, (2, 3, 4, 20, 30)).astype(np.uint16)  # (T, C, Z, Y, X)
RGB = RNG.integers(0, 255, (50, 60, 3)).astype(np.uint8)  # (Y, X, C)


def whole(image: Image) -> np.ndarray:
    return image.data[(slice(None),) * len(image.axes)]


def assert_reads(path: Path, expected: np.ndarray, expected_axes: str, **options) -> Image:
    """Read whole, in a region, and a strided one."""
    image = read_image(path, **options)
    assert image.axes == expected_axes
    assert image.dtype.isnative and image.dtype == expected.dtype.newbyteorder("=")
    pixels = whole(image)
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels, expected)
    region = tuple(slice(n // 3, n - n // 4) for n in image.shape)
    np.testing.assert_array_equal(image.data[region], expected[region])
    np.testing.assert_array_equal(
        image.data[tuple(slice(0, None, 2) for _ in image.axes)], expected[tuple(slice(0, None, 2) for _ in image.axes)]
    )
    return image


def write_zarr(path: Path, pixels: np.ndarray, version: str, axes: list[dict], scale: list[float], **more) -> None:
    """An image as other programs write it: two levels, the first one at full resolution."""
    group = zarr.open_group(path, mode="w", zarr_format=2 if version == "0.4" else 3)
    for level, step in enumerate((1, 2)):
        data = pixels[..., ::step, ::step]
        separator: Any = {"name": "v2", "separator": "/"} if version == "0.4" else None
        group.create_array(
            f"s{level}", data=data, chunks=tuple(min(16, n) for n in data.shape), chunk_key_encoding=separator
        )
    datasets = [
        {
            "path": f"s{level}",
            "coordinateTransformations": [{"type": "scale", "scale": [*scale[:-2], *(s * step for s in scale[-2:])]}],
        }
        for level, step in enumerate((1, 2))
    ]
    metadata = {"multiscales": [{"version": version, "axes": axes, "datasets": datasets}], **more}
    group.attrs.update(metadata if version == "0.4" else {"ome": {"version": version, **metadata}})


TCZYX = [
    {"name": "t", "type": "time", "unit": "millisecond"},
    {"name": "c", "type": "channel"},
    {"name": "z", "type": "space", "unit": "nanometer"},
    {"name": "y", "type": "space", "unit": "micrometer"},
    {"name": "x", "type": "space", "unit": "micrometer"},
]


def cut(path: Path, share: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
