"""forestbridge's engine on 256 features at stride 16, as they are stored: probabilities."""

import numpy as np
from common import fit, interpolated, labelled, load

import forestbridge as fb
from forestbridge import engine


def prepare(folder):
    """Return the (256, Y/16, X/16) float32 cells, the forest and the size of the image."""
    cells, truth = load(folder, "embedding", "truth")
    y, x, k = labelled(folder)
    rf = fit(np.ascontiguousarray(interpolated(cells, len(truth))[:, y, x].T), k)
    state = cells, fb.forest_from_sklearn(rf), truth.shape
    run(state)  # compiles
    return state


def run(state):
    """Return the probabilities, (K, Y, X) float32."""
    cells, forest, shape = state
    return engine.predict(forest, [cells], shape=shape)
