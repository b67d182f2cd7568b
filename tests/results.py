"""A result to write in tests, and what stands beside it."""

from pathlib import Path
from typing import Any

import numpy as np

from forestbridge.image import ResultInfo, read_image

RNG = np.random.default_rng(0)
CLASSES: dict[str, Any] = {
    "classes": (1, 7),
    "names": ("background", "Zellkern ü"),
    "colours": ("#ff0000", "#00ff80"),
    "pixel_size": {"z": 2.0, "y": 0.5, "x": 0.25},
    "frame_interval": 3.0,
    "provenance": {"forest": "nuclei [3f2a]"},
}
FACTS = {"class 1": "background #ff0000", "class 7": "Zellkern ü #00ff80", "forest": "nuclei [3f2a]"}
PROBABILITIES = RNG.random((2, 2, 3, 40, 30)).astype(np.float32)  # (T, K, Z, Y, X)
LABELS = np.array([0, 1, 7])[RNG.integers(0, 3, (2, 3, 40, 30))]  # (T, Z, Y, X) int64
WITH_AXES = [".tif", ".tiff", ".ome.tif", ".ome.tiff", ".ome.zarr"]


def whole(path: Path, axes: str | None = None) -> np.ndarray:
    image = read_image(path, axes=axes)
    return image.data[(slice(None),) * len(image.axes)]


def info_of(axes: str, shape: tuple[int, ...], dtype: Any, **changes: Any) -> ResultInfo:
    return ResultInfo(axes=axes, shape=shape, dtype=np.dtype(dtype), **{**CLASSES, **changes})
