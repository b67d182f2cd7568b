"""What scikit-learn-intelex leaves open in the trees it grows: forests and labelled pixels in, trees to export out.

It finds splits in histograms, and its trees (oneDAL 2026.2) differ from scikit-learn's in two ways that matter outside of it. A leaf
keeps its most frequent class only. And one threshold in five is a training value itself, where scikit-learn's lie half-way between
two: pixels on a threshold fall to the other side in every program that rounds otherwise.
"""

from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.sklearn_forest import TreeArrays, tree_arrays
from forestbridge.threads import cores, for_each, in_order


def complete_trees(
    forest: Any, rows: NDArray[np.float32], classes: NDArray[np.integer], weights: NDArray[np.float64]
) -> list[TreeArrays]:
    """Return the trees with thresholds half-way between training values, and class fractions in their leaves.

    The labelled pixels go the same ways as before. The fractions are those of all that arrive at a leaf, also of the ones that the
    tree did not draw.

    Parameters
    ----------
    forest
        A fitted ``sklearnex.ensemble.RandomForestClassifier``.
    rows, classes
        (N, F) features and (N,) number of the class, from 0, of the labelled pixels.
    weights
        (K,) of each class.
    """
    trees = [tree_arrays(tree) for tree in forest.estimators_]
    thresholds = _centre(rows, np.concatenate([t.feature for t in trees]), np.concatenate([t.threshold for t in trees]))
    ends = np.cumsum([len(t.feature) for t in trees])
    thresholds = np.split(thresholds, ends[:-1])

    def complete(numbers: NDArray) -> list[TreeArrays]:
        return [
            trees[n]._replace(
                threshold=thresholds[n], value=_arrivals(forest.estimators_[n], trees[n], rows, classes, weights)
            )
            for n in numbers
        ]

    return list(chain.from_iterable(in_order(complete, np.array_split(np.arange(len(trees)), cores()))))


def _centre(rows: NDArray[np.float32], feature: NDArray, threshold: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the thresholds of some nodes, half-way between the nearest training values below and above."""
    centred, columns = threshold.copy(), np.ascontiguousarray(rows.T)

    def centre(features: NDArray) -> None:
        for f in features:
            nodes = np.flatnonzero(feature == f)
            values = np.sort(columns[f])
            above = np.searchsorted(values, threshold[nodes], side="right")
            between = (above > 0) & (above < len(values))
            nodes, above = nodes[between], above[between]
            centred[nodes] = (values[above - 1].astype(np.float64) + values[above]) / 2

    for_each(centre, np.array_split(np.unique(feature[feature >= 0]), cores()))
    return centred


def _arrivals(
    tree: Any, arrays: TreeArrays, rows: NDArray[np.float32], classes: NDArray[np.integer], weights: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Return the (nodes, K) weights of the labelled pixels that end at each node.

    A threshold half-way between two neighbouring floats rounds onto one of them; where that leaves a leaf without any, it keeps its
    most frequent class.
    """
    place = tree.tree_.apply(rows) * len(weights) + classes
    sums = np.bincount(place, weights[classes], arrays.value.size).reshape(arrays.value.shape)
    return np.where(sums.sum(axis=1, keepdims=True) > 0, sums, arrays.value)
