"""scipy's filters and scikit-learn on `large.npy` in one piece, labels written with numpy."""

import filters_scipy
import numpy as np
from common import fit, labelled, load


def prepare(folder):
    """Return the folder and the forest."""
    [bank] = load(folder, "bank")
    y, x, k = labelled(folder)
    return folder, fit(np.ascontiguousarray(bank[:, y, x].T), k)


def run(state):
    """Return the number of labels, (1,)."""
    folder, forest = state
    features = filters_scipy.run(np.load(folder / "large.npy")[None].astype(np.float32))
    labels = forest.predict(features.reshape(len(features), -1).T)
    np.save(folder / "labels.npy", labels.astype(np.uint8))
    return np.array([labels.size])
