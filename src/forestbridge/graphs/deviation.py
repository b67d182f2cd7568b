"""How far a written graph is from forestbridge's own numbers: synthetic inputs, both answers, the largest difference."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from forestbridge.archive import onnx_session
from forestbridge.encoders.filters import FilterBank, filter_bank_from_spec
from forestbridge.engine import predict
from forestbridge.forest import PixelForest

Runner: TypeAlias = Callable[[NDArray[np.float32]], NDArray[np.float32]]
"""Runs a graph: (b, C, ...) in, (b, K, ...) out."""

PLANE = (96, 112)
VOLUME = (40, 48, 56)
"""Sizes of the synthetic images in pixels; each axis is longer than the reach of the largest scale of ilastik's dialog."""


@dataclass(frozen=True)
class Deviation:
    """Difference between a graph and forestbridge's own arithmetic.

    Attributes
    ----------
    max_abs
        Largest absolute difference of a feature or probability.
    label_flips
        Pixels whose most probable class differs; 0 for features.
    pixels
        Pixels compared.
    """

    max_abs: float
    label_flips: int
    pixels: int


def compare_features(found: NDArray, expected: NDArray) -> Deviation:
    """Compare features (F, ...)."""
    return Deviation(_max_abs(found, expected), 0, expected[0].size)


def compare_probabilities(found: NDArray, expected: NDArray) -> Deviation:
    """Compare probabilities (K, ...)."""
    flips = int(np.count_nonzero(found.argmax(axis=0) != expected.argmax(axis=0)))
    return Deviation(_max_abs(found, expected), flips, expected[0].size)


def _max_abs(found: NDArray, expected: NDArray) -> float:
    return float(np.abs(found.astype(np.float64) - expected).max())


def onnx_runner(path: str | Path) -> Runner:
    """Open an ONNX file of one input and one output on the CPU."""
    session = onnx_session(Path(path).read_bytes())
    name = session.get_inputs()[0].name
    return lambda batch: np.asarray(session.run(None, {name: batch})[0])


def measure_filters(bank: FilterBank, run: Runner) -> Deviation:
    """Compare a filter bank's graph with `FilterBank.encode` on an image with intensities from 0 to 1."""
    image = synthetic_image(bank.spec.channels, len(bank.spec.axes), peak=1.0)
    return compare_features(run(image[None])[0], _encode(bank, image))


def measure_forest(forest: PixelForest, run: Runner, *, ndim: int) -> Deviation:
    """Compare a forest's graph with the engine on features around the forest's thresholds."""
    features = synthetic_features(forest, ndim)
    return compare_probabilities(run(features[None])[0], predict(forest, features))


def measure_fused(forest: PixelForest, run: Runner, *, image: NDArray[np.float32] | None) -> Deviation:
    """Compare a fused graph with the filter bank and the engine.

    Parameters
    ----------
    image
        (C, y, x) or (C, z, y, x) float32 raw intensities; None for a synthetic one in the range of the forest's thresholds.
    """
    assert forest.spec is not None
    bank = filter_bank_from_spec(forest.spec)
    if image is None:
        image = synthetic_image(bank.spec.channels, len(bank.spec.axes), peak=_intensity(forest))
    return compare_probabilities(run(image[None])[0], predict(forest, _encode(bank, image)))


def synthetic_image(channels: int, ndim: int, *, peak: float) -> NDArray[np.float32]:
    """Return a (C, y, x) or (C, z, y, x) float32 image of waves and noise from 0 to `peak`; always the same."""
    shape = PLANE if ndim == 2 else VOLUME
    rng = np.random.default_rng(0)
    grid = np.meshgrid(*(np.arange(n, dtype=np.float64) for n in shape), indexing="ij")
    image = rng.random((channels, *shape))
    for c in range(channels):
        for period in (7.0, 19.0, 53.0):
            phase = sum(g * w for g, w in zip(grid, rng.uniform(-1, 1, ndim), strict=True))
            image[c] += 1 + np.sin(2 * np.pi * phase / period)
    return (image * (peak / image.max())).astype(np.float32)


def synthetic_features(forest: PixelForest, ndim: int) -> NDArray[np.float32]:
    """Return (F, y, x) or (F, z, y, x) float32 features that reach beyond each feature's thresholds; a third lies exactly on one."""
    shape = (64, 64) if ndim == 2 else (16, 16, 16)
    rng = np.random.default_rng(0)
    features = rng.random((forest.n_features, *shape)).astype(np.float32)
    for f in forest.used_features:
        thresholds = np.unique(forest.threshold[forest.feature == f])
        low, high = float(thresholds[0]), float(thresholds[-1])
        margin = 0.1 * (high - low) + 1e-3 * abs(low)
        features[f] = rng.uniform(low - margin, high + margin, shape)
        on = rng.random(shape) < 1 / 3
        features[f][on] = rng.choice(thresholds, np.count_nonzero(on))
    return features


def _intensity(forest: PixelForest) -> float:
    """Return the intensity at which the forest splits, at most; the structure tensor is quadratic in it."""
    assert forest.spec is not None
    peak = 0.0
    for f in forest.used_features:
        largest = float(np.abs(forest.threshold[forest.feature == f]).max())
        squared = forest.spec.feature_names[f].startswith("Structure Tensor")
        peak = max(peak, largest**0.5 if squared else largest)
    return peak or 1.0


def _encode(bank: FilterBank, image: NDArray[np.float32]) -> NDArray[np.float32]:
    return bank.encode(image, tuple(slice(0, n) for n in image.shape[1:]))[0]
