"""forestbridge's default preset, grown by scikit-learn: 100 trees of depth 10, each on 1000 pixels; out-of-bag report included."""

from dataclasses import dataclass

import numpy as np
from common import interpolated, labelled, load
from numpy.typing import NDArray
from training_sklearn import unseen
from training_sklearn import versions as versions

import forestbridge as fb
from forestbridge import engine
from forestbridge.spec import EncoderSpec, MapSpec


@dataclass(frozen=True)
class Planes:
    """An encoder of one image whose features are in memory: whole as one tile."""

    spec: EncoderSpec
    features: NDArray[np.float32]

    def encode(self, tile: NDArray, core: tuple[slice, ...]) -> tuple[NDArray, ...]:
        """Return the features of a core."""
        return (self.features[(slice(None), *core)],)


def prepare(folder):
    """Return the image, the encoder and the labels, and pixels to judge by."""
    cells, truth = load(folder, "embedding", "truth")
    names = tuple(f"feature {n}" for n in range(len(cells)))
    spec = EncoderSpec(
        name="planes",
        version=1,
        axes="yx",
        channels=1,
        halo=(0, 0),
        maps=(MapSpec("planes", names),),
        intensity={"rule": "raw"},
        options={},
        tile=truth.shape,
    )
    labels = np.zeros(truth.shape, np.uint8)
    y, x, k = labelled(folder)
    labels[y, x] = k + 1
    return (truth, Planes(spec, interpolated(cells, len(truth))), labels), unseen(folder)


def train(state, grown_by):
    """Return the forest."""
    image, encoder, labels = state[0]
    return fb.train([(image, labels)], encoder=encoder, engine=grown_by)


def run(state):
    """Return the forest."""
    return train(state, "sklearn")


def answer(state, forest):
    """Return the share of pixels of another image that the forest gets right, (1,)."""
    rows, truth = state[1]
    return np.array([(engine.predict_labels(forest, rows.T) - 1 == truth).mean()])
