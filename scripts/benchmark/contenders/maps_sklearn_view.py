"""scikit-learn on a transposed view of 256 interpolated features: several times faster than on rows, if they are many."""

import numpy as np
from common import fit, interpolated, labelled, load
from common import versions as versions


def prepare(folder):
    """Return the (256, Y, X) float32 features and the forest."""
    cells, truth = load(folder, "embedding", "truth")
    y, x, k = labelled(folder)
    planes = interpolated(cells, len(truth))
    return planes, fit(np.ascontiguousarray(planes[:, y, x].T), k)


def run(state):
    """Return the probabilities, (K, Y, X) float64."""
    planes, forest = state
    return forest.predict_proba(planes.reshape(len(planes), -1).T).T.reshape(-1, *planes.shape[1:])
