"""Forests without training: random trees over given features, with thresholds among the features' values; and what they answer."""

import numpy as np
from numpy.typing import NDArray

from forestbridge.forest import PixelForest
from forestbridge.spec import EncoderSpec


def random_forest(
    features: NDArray[np.float32],
    *,
    seed: int,
    n_trees: int,
    depth: int,
    n_classes: int = 3,
    pure: bool = False,
    used: list[int] | None = None,
    spec: EncoderSpec | None = None,
) -> PixelForest:
    """Return a forest over features (F, ...).

    Parameters
    ----------
    depth
        Of the deepest way; about one node in six above is a leaf. 0: every tree is one leaf.
    pure
        Leaves of a single class, so that many pixels have a tie.
    used
        The features that splits may look at; all by default.
    """
    rng = np.random.default_rng(seed)
    rows = features.reshape(len(features), -1)  # (F, N)
    columns = used if used is not None else range(len(rows))
    feature: list[int] = []
    threshold: list[float] = []
    left: list[int] = []

    def add_leaves(n: int) -> None:
        feature.extend([-1] * n)
        threshold.extend([0.0] * n)
        left.extend([-1] * n)

    roots = []
    for _ in range(n_trees):
        roots.append(len(feature))
        waiting = [(0, len(feature))]
        add_leaves(1)
        while waiting:
            level, node = waiting.pop()
            goes_on = not waiting or rng.random() < (5 / 6 if level < 8 else 0.4)  # one way always reaches the depth
            if level < depth and goes_on:
                feature[node] = int(rng.choice(columns))
                threshold[node] = float(rows[feature[node], rng.integers(rows.shape[1])])
                left[node] = len(feature)
                waiting += [(level + 1, left[node]), (level + 1, left[node] + 1)]
                add_leaves(2)
    is_leaf = np.array(feature) < 0
    n_leaves = np.count_nonzero(is_leaf)
    rank = np.where(is_leaf, np.cumsum(is_leaf) - 1, left)
    classes = rng.integers(n_classes, size=n_leaves)
    leaves = np.eye(n_classes)[classes] if pure else rng.dirichlet(np.full(n_classes, 0.5), n_leaves)
    return PixelForest(
        feature=np.array(feature, np.int32),
        threshold=np.array(threshold, np.float32),
        left=rank.astype(np.int32),
        roots=np.array(roots, np.int32),
        leaves=leaves.astype(np.float32),
        n_features=len(rows),
        classes=tuple(range(1, n_classes + 1)),
        names=tuple(f"class {k}" for k in range(1, n_classes + 1)),
        colours=("#ff0000",) * n_classes,
        spec=spec,
        training={},
        versions={},
    )


def oracle_probabilities(forest: PixelForest, features: NDArray[np.float32]) -> NDArray[np.float64]:
    """Walk every tree for every pixel in numpy, sum in float64; (F, ...) in, (K, ...) out."""
    rows = features.reshape(len(features), -1)  # (F, N)
    pixel = np.arange(rows.shape[1])
    sums = np.zeros((rows.shape[1], forest.n_classes))
    for root in forest.roots:
        node = np.full(len(pixel), root)
        while (split := forest.feature[node] >= 0).any():
            goes_left = rows[forest.feature[node], pixel] <= forest.threshold[node]
            node = np.where(split, forest.left[node] + ~goes_left, node)
        sums += forest.leaves[forest.left[node]]
    return (sums / forest.n_trees).T.reshape(-1, *features.shape[1:])
