"""scikit-learn with its own settings: 100 trees of any depth, each on as many pixels as there are."""

import numpy as np
from common import fit, interpolated, labelled, load
from common import versions as versions


def painted(folder):
    """Return the (N, 256) float32 features and the (N,) classes of the labelled pixels."""
    cells, truth = load(folder, "embedding", "truth")
    y, x, k = labelled(folder)
    return np.ascontiguousarray(interpolated(cells, len(truth))[:, y, x].T), k


def unseen(folder):
    """Return (N, 256) float32 features and (N,) classes of pixels of another image."""
    cells, truth = load(folder, "other_embedding", "other_truth")
    pixels = np.random.default_rng(0).choice(truth.size, 20_000, replace=False)
    planes = interpolated(cells, len(truth)).reshape(len(cells), -1)
    return np.ascontiguousarray(planes[:, pixels].T), truth.ravel()[pixels]


def prepare(folder):
    """Return the labelled pixels, and those to judge by."""
    return painted(folder), unseen(folder)


def run(state):
    """Return the forest."""
    return fit(*state[0])


def answer(state, forest):
    """Return the share of pixels of another image that the forest gets right, (1,)."""
    rows, truth = state[1]
    return np.array([(forest.predict(rows) == truth).mean()])
