"""FeatureForest's own adapters at work: the features that its extraction gives, and how far others are from them."""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from deep_weights import cyto3_file
from featureforest_files import featureforest
from forestbridge.stores.patches import PatchGrid

CPU = torch.device("cpu")


def theirs(adapter: Any, image: NDArray) -> NDArray[np.float32]:
    """Return the (F, Y, X) features of an image (Y, X), or (Y, X, 3) in colour, that FeatureForest's extraction gives an adapter."""
    extraction = featureforest("utils.extract")
    patches = np.concatenate([part for part, _, _ in extraction.extract_embeddings(adapter, image=image[None])])
    height, width = image.shape[:2]
    grid = PatchGrid(height, width, adapter.patch_size, adapter.overlap)
    side = adapter.patch_size - adapter.overlap
    rows = patches.reshape(grid.rows, grid.columns, side, side, -1).swapaxes(1, 2)
    whole = rows.reshape(grid.rows * side, grid.columns * side, -1)[:height, :width]
    return np.moveaxis(whole, -1, 0).astype(np.float32)


def deviation(found: NDArray[np.float32], expected: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return (F, Y, X): by how much stored features differ, in units of each feature's largest value."""
    stored = found.astype(np.float16).astype(np.float32)
    return np.abs(stored - expected) / np.abs(expected).max(axis=(1, 2), keepdims=True).clip(1e-6)


def cellpose(height: int, width: int) -> Any:
    """Return FeatureForest's adapter of Cellpose with the weights that it ships."""
    network = featureforest("models.Cellpose.cellpose_downsample").downsample([2, 32, 64, 128, 256], 3)
    network.load_state_dict(torch.load(cyto3_file(), weights_only=True))
    return featureforest("models.Cellpose.adapter").CellposeAdapter(network.eval(), height, width, CPU)
