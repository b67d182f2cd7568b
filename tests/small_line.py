"""A short line for tests: phantoms, filter banks of a few features and a small halo, and forests of ten trees."""

import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from forestbridge.encoders import open_encoder
from forestbridge.encoders.filters import FilterBank
from forestbridge.forest import PixelForest
from forestbridge.image import Image, as_image
from forestbridge.phantom import Phantom, phantom
from forestbridge.train import train

SELECTION = {
    "GaussianSmoothing": [0.7, 1.6],
    "StructureTensorEigenvalues": [1.0],
    "HessianOfGaussianEigenvalues": [1.0],
}
"""Six features in 2D; halo 7."""

SELECTION_3D = {"GaussianSmoothing": [0.7], "HessianOfGaussianEigenvalues": [1.0]}
"""Four features in 3D; halo 6 along each axis, and thus packages with windows of 16 planes."""

CELLS = phantom((96, 112))
STAINED = phantom((80, 90), channels=3, seed=3)
STACK = phantom((18, 70, 74), seed=1)
"""(1, 18, 70, 74); scribbles in three planes."""


def small_encoder(*, channels: int = 1, volume: bool = False, **options: Any) -> FilterBank:
    """Return a filter bank of few features, in 2D or 3D."""
    options = {"selection": SELECTION_3D if volume else SELECTION, "compute_in_2d": not volume, **options}
    encoder = open_encoder("filters", channels=channels, **options)
    assert isinstance(encoder, FilterBank)
    return encoder


@cache
def small_forest(kind: str = "cells") -> PixelForest:
    """Return the forest of a phantom: "cells" (one channel), "stained" (three), "stack" (3D filters)."""
    picture: Phantom = {"cells": CELLS, "stained": STAINED, "stack": STACK}[kind]
    encoder = small_encoder(channels=3 if kind == "stained" else 1, volume=kind == "stack")
    pairs = [(picture.image, picture.scribbles)]
    return train(
        pairs, encoder=encoder, n_trees=10, names=picture.names, engine="sklearn"
    )  # whatever else is installed


def noise(axes: str, shape: tuple[int, ...], *, seed: int = 0) -> Image:
    """Return an image of noise in the range of the phantoms, with pixel sizes where it has the axes."""
    pixels = np.random.default_rng(seed).integers(0, 3000, shape).astype(np.uint16)
    known = {a: v for a, v in {"z": 2.0, "y": 0.5, "x": 0.25}.items() if a.upper() in axes}
    return Image(as_image(pixels, axes=axes).data, axes, pixel_size=known, source="noise.tif")


def same_trees(a: PixelForest, b: PixelForest) -> bool:
    """Return whether two forests have the same nodes and leaves."""
    return all(
        np.array_equal(getattr(a, n), getattr(b, n)) for n in ("feature", "threshold", "left", "roots", "leaves")
    )


def two_halves(height: int = 20, width: int = 20) -> NDArray:
    """Labels (Y, X): 1 in the left half, 2 in the right one."""
    return np.tile(np.repeat([1, 2], [width // 2, width - width // 2]), (height, 1))


def inside(array: NDArray, halo: tuple[int, ...]) -> NDArray:
    """Return the part of (..., y, x) or (..., z, y, x) that lies farther than the halo from the image's edge."""
    return array[(..., *(slice(h, n - h) for h, n in zip(halo, array.shape[-len(halo) :], strict=True)))]


def peak_memory() -> float:
    """Return the largest resident memory of this process so far, in MiB; ru_maxrss would begin with that of the parent."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def run_and_measure(code: str, folder: Path) -> list[float]:
    """Run code in a process of its own, with `folder` as argument; return the numbers that it prints."""
    if not Path("/proc/self/status").exists():
        pytest.skip("peak memory is read from /proc, which is missing here")
    paths = {"PYTHONPATH": str(Path(__file__).parent)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **paths},
    )
    assert done.returncode == 0, done.stderr
    print(f"MiB before and at most: {done.stdout}")
    return [float(number) for number in done.stdout.split()]
