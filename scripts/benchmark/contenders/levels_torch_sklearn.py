"""torch interpolates 768 features from three maps, scikit-learn predicts on their rows, in strips of 128 lines: probabilities.

In one piece the rows would take 3 GiB and as much again for the interpolated maps.
"""

import numpy as np
import torch
from common import THREADS, fit, interpolated, labelled, load

STRIP = 128


def prepare(folder):
    """Return the three maps, (256, y, x) float32 tensors, the forest and the size of the image."""
    *maps, truth = load(folder, "level_4", "level_8", "level_16", "truth")
    y, x, k = labelled(folder)
    rows = [interpolated(cells, len(truth))[:, y, x].T for cells in maps]
    torch.set_num_threads(THREADS)
    return [torch.from_numpy(m.astype(np.float32)) for m in maps], fit(np.concatenate(rows, axis=1), k), truth.shape


def run(state):
    """Return the probabilities, (K, Y, X) float64."""
    maps, forest, shape = state
    result = np.empty((forest.n_classes_, *shape))
    # Each channel is interpolated once and whole; only the rows are made strip by strip.
    planes = [torch.nn.functional.interpolate(m[None], size=shape, mode="bilinear")[0].numpy() for m in maps]
    for y in range(0, shape[0], STRIP):
        rows = np.concatenate([p[:, y : y + STRIP].reshape(len(p), -1) for p in planes]).T  # (n, 768)
        result[:, y : y + STRIP] = forest.predict_proba(np.ascontiguousarray(rows)).T.reshape(-1, STRIP, shape[1])
    return result


def versions():
    """Return the version of torch."""
    return {"torch": torch.__version__}
