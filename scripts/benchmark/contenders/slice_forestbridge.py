"""forestbridge's slice prediction: features read from its OME-Zarr store, FeatureForest's settings (450 trees), labels.

The store holds the 64 × 64 grid of `embedding.npy` itself, float16, where FeatureForest's holds it interpolated to every pixel.
"""

import shutil
from dataclasses import dataclass

import numpy as np
from common import labelled, load
from numpy.typing import NDArray

import forestbridge as fb
from forestbridge.spec import EncoderSpec, MapSpec

STRIDE = 16


@dataclass(frozen=True)
class GridEncoder:
    """Hands over the tiles of a (256, y, x) grid, one after the other, whatever their pixels."""

    spec: EncoderSpec
    grid: NDArray

    def encode(self, tile: NDArray, core: tuple[slice, ...]) -> tuple[NDArray, ...]:
        """Return the cells of a tile; every image here is one tile."""
        rows, columns = ((s.stop - s.start) // STRIDE for s in core)
        return (self.grid[:, :rows, :columns],)


def prepare(folder):
    """Write the store, train, and return the store's path and the forest."""
    image, grid, truth = load(folder, "image", "embedding", "truth")
    names = tuple(f"feature {n}" for n in range(len(grid)))
    spec = EncoderSpec(
        name="grid",
        version=1,
        axes="yx",
        channels=1,
        halo=(0, 0),
        maps=(MapSpec("grid", names, stride=STRIDE, offset=(STRIDE - 1) / 2),),
        intensity={"rule": "raw"},
        options={},
        tile=image.shape,
        dtype="float16",
    )
    path = folder / "slice.features.ome.zarr"
    shutil.rmtree(path, ignore_errors=True)
    store = fb.extract(image, GridEncoder(spec, grid), path)
    labels = np.zeros(truth.shape, np.uint8)
    y, x, k = labelled(folder)
    labels[y, x] = k + 1
    state = path, fb.train([(store, labels)], preset="featureforest", engine="sklearn")
    run(state)  # compiles
    return state


def run(state):
    """Return the labels, (Y, X) uint8, 0..K-1."""
    path, forest = state
    return fb.predict(fb.open_store(path), forest, kind="labels") - 1
