"""`PixelForest`: a random forest as plain arrays, with the spec of its features; saved as safetensors, never as pickle."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from forestbridge.spec import EncoderSpec


@dataclass(frozen=True, eq=False)
class PixelForest:
    """A random forest over the features of one encoder.

    The nodes of all trees stand in one numbering; the two children of a split stand side by side, after their parent.

    Attributes
    ----------
    feature
        (N,) int32: the feature that a split looks at; -1 for a leaf.
    threshold
        (N,) float32: a pixel goes left iff its feature ≤ threshold; 0 for a leaf.
    left
        (N,) int32: a split's left child (its right child is left + 1); for a leaf its row in `leaves`.
    roots
        (T,) int32: the root of each tree; a tree's nodes reach up to the next root.
    leaves
        (L, K) float32: class fractions, each row sums to 1. A pixel's probabilities are the mean over the trees.
    n_features
        Number of features a pixel has.
    classes
        (K,) the label values as painted, ascending.
    names
        K class names for people.
    colours
        K colours as "#rrggbb".
    spec
        Encoder of the features; None for a forest over features that were not made by forestbridge.
    training
        Summary of the training, JSON values: pixels per class, out-of-bag accuracy, confusion matrix, parameters.
    versions
        Versions of the programs that made it.
    """

    feature: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    roots: NDArray[np.int32]
    leaves: NDArray[np.float32]
    n_features: int
    classes: tuple[int, ...]
    names: tuple[str, ...]
    colours: tuple[str, ...]
    spec: EncoderSpec | None
    training: Mapping[str, Any]
    versions: Mapping[str, str]
