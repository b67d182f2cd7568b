"""Probabilities of a project's forests with vigra, for the system's Python: `vigra_forests.py PROJECT.ilp N ROWS.npy OUT.npy`.

ROWS is (n, F) float32. OUT is (n, K): the mean over the trees of the worker forests 0 to N-1, as ilastik computes it.
"""

import sys

import numpy as np
import vigra  # pyright: ignore[reportMissingImports]


def main(project, n, rows, out):
    """Read the forests, and let them vote."""
    features = np.load(rows)
    total, trees = 0, 0
    for k in range(int(n)):
        forest = vigra.learning.RandomForest(project, f"PixelClassification/ClassifierForests/Forest{k:04d}")
        total = total + forest.predictProbabilities(features) * forest.treeCount()
        trees += forest.treeCount()
    np.save(out, total / trees)


if __name__ == "__main__":
    main(*sys.argv[1:])
