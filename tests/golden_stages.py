"""The stages whose results are frozen in tests/golden. Each gets the frozen result of the stage before, so a failure names its stage.

image, labels → features → forest → probabilities → package
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge import engine
from forestbridge.archive import onnx_session, run_session
from forestbridge.encoders import open_encoder
from forestbridge.encoders.base import Encoder
from forestbridge.encoders.features import features
from forestbridge.forest import PixelForest
from forestbridge.graphs import export_fused_onnx
from forestbridge.phantom import Phantom, phantom
from forestbridge.spec import EncoderSpec
from forestbridge.train import train
from small_line import SELECTION, SELECTION_3D

FOLDER = Path(__file__).parent / "golden"

CASES = ("plane", "stack")
"""Filters in 2D on (Y, X), and in 3D on (C, Z, Y, X)."""


@dataclass(frozen=True)
class FrozenEncoder:
    """An encoder that answers for one image, with features that were computed before."""

    spec: EncoderSpec
    features: NDArray[np.float32]

    def encode(self, tile: NDArray[np.float32], core: tuple[slice, ...]) -> tuple[NDArray[np.float32], ...]:
        """Return the features; the image is one tile."""
        assert tile.shape[1:] == self.features.shape[1:]
        return (self.features[(slice(None), *core)],)


def picture(case: str) -> Phantom:
    """Return the image and its scribbles."""
    return phantom((32, 40) if case == "plane" else (8, 16, 16), seed=6)


def encoder(case: str) -> Encoder:
    """Return the filter bank of a case."""
    volume = case == "stack"
    return open_encoder("filters", selection=SELECTION_3D if volume else SELECTION, compute_in_2d=not volume)


def compute_features(case: str, image: NDArray) -> NDArray[np.float32]:
    """Return (F, Y, X) or (F, Z, Y, X)."""
    return features(image, encoder(case))


def compute_forest(case: str, image: NDArray, labels: NDArray, frozen: NDArray[np.float32]) -> PixelForest:
    """Return the forest trained on frozen features."""
    return train(
        [(image, labels)], encoder=FrozenEncoder(encoder(case).spec, frozen), n_trees=5, max_depth=4, engine="sklearn"
    )


def compute_probabilities(forest: PixelForest, frozen: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return what the engine makes of frozen features: (K, Y, X) or (K, Z, Y, X)."""
    return engine.predict(forest, frozen)


def compute_package(forest: PixelForest, image: NDArray, folder: Path) -> NDArray[np.float32]:
    """Return what the fused ONNX graph of the frozen forest makes of the image: (K, Y, X) or (K, Z, Y, X)."""
    raw = image.astype(np.float32)
    raw = raw if raw.ndim == 4 else raw[None]  # (C, ...)
    export_fused_onnx(forest, folder / "weights.onnx", image=raw)
    session = onnx_session((folder / "weights.onnx").read_bytes(), threads=1)
    return run_session(session, [raw[None]])[0][0]
