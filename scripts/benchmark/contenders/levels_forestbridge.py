"""forestbridge's engine on 768 float16 features in three maps at strides 4, 8 and 16, as they are stored: probabilities."""

import numpy as np
from common import fit, interpolated, labelled, load

import forestbridge as fb
from forestbridge import engine


def prepare(folder):
    """Return the three maps, the forest and the size of the image."""
    *maps, truth = load(folder, "level_4", "level_8", "level_16", "truth")
    y, x, k = labelled(folder)
    rows = [interpolated(cells, len(truth))[:, y, x].T for cells in maps]
    state = maps, fb.forest_from_sklearn(fit(np.concatenate(rows, axis=1), k)), truth.shape
    run(state)  # compiles
    return state


def run(state):
    """Return the probabilities, (K, Y, X) float32."""
    maps, forest, shape = state
    return engine.predict(forest, maps, shape=shape)
