"""Forest prediction on feature planes: (F, ...) float32 in, (K, ...) float32 class probabilities out.

Leaf fractions are summed unscaled and divided by the number of trees at the end; with thresholds rounded down to
float32 every decision is scikit-learn's. The compiled loop, and how it is fast, stand in `engine_kernel`.
"""

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import SpecMismatchError
from forestbridge.forest import PixelForest


def predict(forest: PixelForest, features: NDArray) -> NDArray[np.float32]:
    """Return the class probabilities of every pixel.

    Parameters
    ----------
    features
        (F, Y, X), (F, Z, Y, X) or (F, N), finite, in the order of the forest's spec.

    Returns
    -------
    probabilities
        (K, Y, X), (K, Z, Y, X) or (K, N) float32 in the order of ``forest.classes``; they sum to 1.

    Raises
    ------
    SpecMismatchError
        If the number of features is not the forest's.
    ValueError
        If a feature is NaN or infinite, with count and first place.
    """
    sums = _sum_leaves(forest, _planes(forest, features))
    return (sums / forest.n_trees).astype(np.float32).reshape(forest.n_classes, *features.shape[1:])


def _planes(forest: PixelForest, features: NDArray) -> NDArray[np.float32]:
    """Return the features as (F, rows, columns) float32, checked."""
    features = np.asarray(features)
    if features.shape[0] != forest.n_features:
        raise SpecMismatchError(
            f"expected the {forest.n_features} features of {forest.spec or 'the forest'}, found an array of shape {features.shape}; "
            "the first axis counts the features: extract them with the forest's encoder"
        )
    planes = np.ascontiguousarray(features, dtype=np.float32)
    finite = np.isfinite(planes)
    if not finite.all():
        f, *place = (int(i) for i in np.argwhere(~finite)[0])
        raise ValueError(
            f"expected finite features, found {int((~finite).sum())} NaN or infinite ones, the first in feature {f} at {tuple(place)}; "
            "a forest has no answer for them: extract the missing part, or replace them first"
        )
    columns = planes.shape[-1]
    return planes.reshape(forest.n_features, -1, columns)  # stacks: the rows of all planes below each other


def _sum_leaves(forest: PixelForest, planes: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the (K, rows, columns) sums over the trees for (F, rows, columns) features."""
    from forestbridge.engine_kernel import LANES, walk  # compiled; numba takes a while to import

    used = forest.used_features
    position = np.full(forest.n_features, -1, np.int32)
    position[used] = np.arange(len(used), dtype=np.int32)
    feature = np.where(forest.feature >= 0, position[forest.feature], -1).astype(np.int32)
    height = 1 if planes.shape[1] == 1 else 16
    sums = np.empty((forest.n_classes, *planes.shape[1:]), np.float64)
    walk(
        planes,
        used,
        feature,
        forest.threshold,
        forest.left,
        forest.roots,
        forest.leaves,
        forest.depth(),
        height,
        LANES // height,
        sums,
    )
    return sums
