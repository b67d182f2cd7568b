"""forestbridge from the image to labels: ilastik's filters and the forest, tile by tile."""

import numpy as np
from common import fit, labelled, load

import forestbridge as fb


def prepare(folder):
    """Return the image, (Y, X) uint8, and the forest."""
    image, bank = load(folder, "image", "bank")
    y, x, k = labelled(folder)
    rf = fit(np.ascontiguousarray(bank[:, y, x].T), k)
    state = image, fb.forest_from_sklearn(rf, fb.open_encoder("filters").spec)
    run(state)  # compiles
    return state


def run(state):
    """Return the labels, (Y, X) uint8, 0..K-1."""
    image, forest = state
    return fb.predict(image, forest, kind="labels")
