"""scipy's filters with shared passes, then scikit-learn on their rows: from the image to labels."""

import filters_scipy
import numpy as np
from common import fit, labelled, load


def prepare(folder):
    """Return the image, (1, Y, X) float32, and the forest."""
    [bank] = load(folder, "bank")
    y, x, k = labelled(folder)
    return filters_scipy.prepare(folder), fit(np.ascontiguousarray(bank[:, y, x].T), k)


def run(state):
    """Return the labels, (Y, X), 0..K-1."""
    image, forest = state
    features = filters_scipy.run(image)
    rows = np.ascontiguousarray(features.reshape(len(features), -1).T)  # (Y*X, 49)
    return forest.predict(rows).reshape(image.shape[1:])
