"""A synthetic image with its truth and scribbles, for examples, tests and benchmarks: a seed in, arrays out."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray
from scipy import ndimage

CLASS_NAMES = ("background", "cytoplasm", "nucleus", "membrane", "nucleolus")
"""Names of classes 1, 2, …; a phantom of K classes has the first K, and one it lacks counts as the one around it."""

_BRIGHTNESS = np.array(
    [  # background, cytoplasm, nucleus, membrane, nucleolus
        [0.06, 0.35, 0.65, 0.50, 0.85],
        [0.05, 0.55, 0.15, 0.80, 0.10],
        [0.08, 0.15, 0.80, 0.20, 0.40],
    ]
)
"""Mean signal of each class in channels 0, 1, 2 (then again from 0); the full range is 1."""


@dataclass(frozen=True, eq=False)
class Phantom:
    """A synthetic image with what it shows.

    Attributes
    ----------
    image
        (Y, X) or, with several channels, (C, Y, X); a stack is always (C, Z, Y, X).
    truth
        (Y, X) or (Z, Y, X) uint8: class 1..K of every pixel.
    scribbles
        uint8 of the same shape: strokes inside the truth, 0 where nothing is labelled.
    names
        Names of classes 1..K.
    """

    image: NDArray
    truth: NDArray[np.uint8]
    scribbles: NDArray[np.uint8]
    names: tuple[str, ...]


def phantom(
    shape: Sequence[int] = (256, 256),
    *,
    classes: int = 3,
    channels: int = 1,
    seed: int = 0,
    dtype: DTypeLike = "uint16",
) -> Phantom:
    """Draw cells with nuclei, texture, uneven light, blur and noise.

    Parameters
    ----------
    shape
        (Y, X) or (Z, Y, X), Y and X at least 16.
    classes
        2 to 5, see `CLASS_NAMES`; with 2, nucleus and cytoplasm are one.
    channels
        At least 1; they show the same cells in different stainings.
    seed
        The same seed gives the same arrays.
    dtype
        An unsigned integer, filled to about half of its range at most (12 bits from 16 bits on, as cameras do),
        or a float in 0..1.

    Raises
    ------
    ValueError
        If an argument is out of range.
    """
    kind = np.dtype(dtype)
    if len(shape) not in (2, 3) or min(shape[-2:]) < 16 or min(shape) < 1:
        raise ValueError(f"expected a shape (Y, X) or (Z, Y, X) with Y and X of at least 16, found {tuple(shape)}")
    if not 2 <= classes <= len(CLASS_NAMES) or channels < 1:
        raise ValueError(
            f"expected 2 to {len(CLASS_NAMES)} classes and at least 1 channel, found {classes} and {channels}"
        )
    if kind.kind not in "uf":
        raise ValueError(f"expected an unsigned integer or float dtype, found {kind}")
    rng = np.random.default_rng(seed)
    volume = (1, *shape) if len(shape) == 2 else tuple(shape)  # (Z, Y, X) throughout
    parts = _cells(volume, rng)
    texture = _smooth_noise(volume, 1.5, rng)
    light = 1 + 0.15 * _smooth_noise(volume, min(shape[-2:]) / 6, rng)
    image = np.stack([_stain(parts, _BRIGHTNESS[c % 3], texture, light, rng) for c in range(channels)])  # (C, Z, Y, X)
    truth = _as_classes(parts, classes)
    scribbles = _strokes(truth, classes, rng)
    if len(shape) == 2:
        image, truth, scribbles = image[:, 0], truth[0], scribbles[0]  # (C, Y, X), (Y, X)
        image = image[0] if channels == 1 else image
    return Phantom(_quantise(image, kind), truth, scribbles, CLASS_NAMES[:classes])


def _cells(volume: Sequence[int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return (Z, Y, X) indices into `CLASS_NAMES`: cells on a jittered grid, without overlap."""
    depth, height, width = volume
    spacing = int(np.clip(min(height, width) // 3, 14, 56))
    wobble = 0.1 * _smooth_noise(volume, spacing / 6, rng)
    parts = np.zeros(volume, np.uint8)
    for top in range(height % spacing // 2, height - spacing + 1, spacing):
        for left in range(width % spacing // 2, width - spacing + 1, spacing):
            radius = spacing * rng.uniform(0.38, 0.46)
            squeeze = rng.uniform(0.85, 1.0)
            y, x = np.array([top, left]) + spacing / 2 + rng.uniform(-1, 1, 2) * (0.5 * spacing - radius)
            z = depth / 2 - 0.5 + rng.uniform(-0.2, 0.2) * depth
            radius_z = max(depth * 0.45, 1.0)
            box = (slice(None), *(slice(max(0, int(c - 1.4 * radius)), int(c + 1.4 * radius)) for c in (y, x)))
            zz, yy, xx = np.ogrid[
                0:depth, box[1].start : min(box[1].stop, height), box[2].start : min(box[2].stop, width)
            ]
            dz, dy, dx = (zz - z) / radius_z, (yy - y) / radius, (xx - x) / radius  # 1 on the cell's surface
            distance = np.sqrt(dz**2 + (dy / squeeze) ** 2 + dx**2) + wobble[box]
            inner = np.sqrt(dz**2 + dy**2 + (dx - 0.1) ** 2) + 0.5 * wobble[box]  # the nucleus lies off the centre
            cell = np.where(inner < 0.16, 4, np.where(inner < 0.48, 2, np.where(distance > 0.88, 3, 1)))
            parts[box] = np.where((distance < 1) & (parts[box] == 0), cell, parts[box])
    return parts


def _stain(
    parts: NDArray[np.uint8], brightness: NDArray, texture: NDArray, light: NDArray, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Return (Z, Y, X) signal of one channel."""
    grain = np.array([0.01, 0.10, 0.08, 0.05, 0.02])
    signal = (brightness[parts] + grain[parts] * texture) * light
    signal = ndimage.gaussian_filter(signal, (0.5, 1.0, 1.0), mode="reflect", truncate=3)
    noise = rng.standard_normal(parts.shape, np.float32)
    return (signal + noise * np.sqrt(0.0015 * np.maximum(signal, 0) + 0.0001)).astype(np.float32)


def _as_classes(parts: NDArray[np.uint8], classes: int) -> NDArray[np.uint8]:
    surrounding = {2: [0, 1, 1, 1, 1], 3: [0, 1, 2, 1, 2], 4: [0, 1, 2, 3, 2], 5: [0, 1, 2, 3, 4]}
    return (np.array(surrounding[classes], np.uint8) + 1)[parts].astype(np.uint8)


def _strokes(truth: NDArray[np.uint8], classes: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Return (Z, Y, X) strokes, a few for each class, in the planes at 1/4, 1/2 and 3/4 of a stack."""
    depth, height, width = truth.shape
    scribbles = np.zeros_like(truth)
    for z in sorted({depth // 4, depth // 2, 3 * depth // 4}):
        for value in range(1, classes + 1):
            mask = truth[z] == value
            starts = np.argwhere(ndimage.binary_erosion(mask))
            starts = starts if len(starts) else np.argwhere(mask)
            for _ in range(6 if len(starts) else 0):
                y, x = starts[rng.integers(len(starts))].astype(float)
                angle = rng.uniform(0, 2 * np.pi)
                for turn in rng.normal(0, 0.35, 32):
                    row, column = round(y), round(x)
                    near = (slice(max(0, row - 1), row + 1), slice(max(0, column - 1), column + 1))  # a brush of 2 × 2
                    scribbles[z][near] = np.where(mask[near], value, scribbles[z][near])
                    angle += turn
                    step = np.array([np.sin(angle), np.cos(angle)])
                    row, column = round(y + step[0]), round(x + step[1])
                    if 0 <= row < height and 0 <= column < width and mask[row, column]:
                        y, x = y + step[0], x + step[1]
                    else:
                        angle += np.pi / 2  # the stroke turns away from the border of its class
    return scribbles


def _smooth_noise(volume: Sequence[int], sigma: float, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return (Z, Y, X) noise of unit variance and a correlation length of sigma pixels."""
    noise = rng.standard_normal(volume, np.float32)
    noise = ndimage.gaussian_filter(noise, (min(sigma, volume[0] / 4), sigma, sigma), mode="wrap", truncate=3)
    return (noise / max(float(noise.std()), 1e-6)).astype(np.float32)


def _quantise(image: NDArray[np.float32], dtype: np.dtype) -> NDArray:
    if dtype.kind == "f":
        return np.clip(image, 0, 1).astype(dtype)
    full = 200 if dtype.itemsize == 1 else 3000
    offset = 10 if dtype.itemsize == 1 else 100
    return np.clip(np.rint(image * full + offset), 0, np.iinfo(dtype).max).astype(dtype)
