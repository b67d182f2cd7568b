"""ilastik's pixel classification with vigra alone: its 49 features, its forest of 100 trees, labels.

The trees are spread over as many forests as there are threads (two), as in ilastik: each forest predicts all pixels in
a thread of its own, and the probabilities are averaged. Options of the forest are vigra's defaults, as in ilastik.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import vigra
import vigra_filters

TREES, FORESTS = 100, 2


def feature_rows(image):
    """Return the features as ilastik lays them out for its forest, (Y, X, 49) float32."""
    rows = np.empty((*image.shape, 49), np.float32)
    vigra_filters.vigra_features(image, np.moveaxis(rows, -1, 0))
    return rows


def prepare(folder):
    """Train on the scribbles and return the image, (Y, X) uint8, and the forests."""
    image, y, x, classes = (
        np.load(folder / f"{n}.npy") for n in ("image", "scribble_y", "scribble_x", "scribble_class")
    )
    rows = feature_rows(image)[y, x]  # (N, 49)
    labels = classes.astype(np.uint32)[:, None] + 1  # (N, 1), 1..K
    forests = []
    for seed in range(FORESTS):
        forest = vigra.learning.RandomForest(TREES // FORESTS)
        forest.learnRF(rows, labels, randomSeed=seed + 1)  # ilastik leaves it 0, the clock
        forests.append(forest)
    return image, forests


def run(state):
    """Return the labels, (Y, X) uint8, 0..K-1."""
    image, forests = state
    rows = feature_rows(image).reshape(-1, 49)  # (Y*X, 49)
    with ThreadPoolExecutor(FORESTS) as pool:
        probabilities = sum(pool.map(lambda forest: forest.predictProbabilities(rows), forests))  # (Y*X, K) float32
    return probabilities.argmax(axis=1).astype(np.uint8).reshape(image.shape)


def versions():
    """Return the version of vigra."""
    return vigra_filters.versions()
