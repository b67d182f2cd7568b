"""scikit-learn on the rows of 256 interpolated features, which are in memory already: probabilities."""

import numpy as np
from common import fit, interpolated, labelled, load
from common import versions as versions


def prepare(folder):
    """Return the (Y*X, 256) float32 rows, the forest and the size of the image."""
    cells, truth = load(folder, "embedding", "truth")
    y, x, k = labelled(folder)
    planes = interpolated(cells, len(truth))  # (256, Y, X)
    forest = fit(np.ascontiguousarray(planes[:, y, x].T), k)
    return np.ascontiguousarray(planes.reshape(len(planes), -1).T), forest, truth.shape


def run(state):
    """Return the probabilities, (K, Y, X) float64."""
    rows, forest, shape = state
    return forest.predict_proba(rows).T.reshape(-1, *shape)
