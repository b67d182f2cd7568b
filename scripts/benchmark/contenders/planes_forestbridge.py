"""forestbridge's engine on ilastik's 49 features, which are in memory already: labels."""

import numpy as np
from common import fit, labelled, load

import forestbridge as fb
from forestbridge import engine


def prepare(folder):
    """Return the (49, Y, X) float32 features and the forest."""
    [bank] = load(folder, "bank")
    y, x, k = labelled(folder)
    state = bank, fb.forest_from_sklearn(fit(np.ascontiguousarray(bank[:, y, x].T), k))
    run(state)  # compiles
    return state


def run(state):
    """Return the labels, (Y, X) uint8, 0..K-1."""
    bank, forest = state
    return engine.predict_labels(forest, bank)
