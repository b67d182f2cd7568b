"""scikit-learn on the rows of ilastik's 49 features, which are in memory already: labels."""

import numpy as np
from common import fit, labelled, load
from common import versions as versions


def prepare(folder):
    """Return the (Y*X, 49) float32 rows, the forest and the size of the image."""
    [bank] = load(folder, "bank")
    y, x, k = labelled(folder)
    forest = fit(np.ascontiguousarray(bank[:, y, x].T), k)
    return np.ascontiguousarray(bank.reshape(len(bank), -1).T), forest, bank.shape[1:]


def run(state):
    """Return the labels, (Y, X), 0..K-1."""
    rows, forest, shape = state
    return forest.predict(rows).reshape(shape)
