"""From a fitted scikit-learn forest to a `PixelForest` that decides exactly as it does."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ForestError
from forestbridge.forest import PixelForest
from forestbridge.spec import EncoderSpec


class TreeArrays(NamedTuple):
    """A tree as scikit-learn keeps it.

    Attributes
    ----------
    children_left, children_right
        (nodes,) indices; -1 for a leaf.
    feature, threshold
        (nodes,): a pixel goes left iff its feature ≤ threshold.
    value
        (nodes, K) class fractions, or counts as before scikit-learn 1.3.
    """

    children_left: NDArray[np.intp]
    children_right: NDArray[np.intp]
    feature: NDArray[np.intp]
    threshold: NDArray[np.float64]
    value: NDArray[np.float64]


def forest_from_sklearn(
    rf: Any,
    spec: EncoderSpec | None = None,
    names: Sequence[str] | None = None,
    *,
    colours: Sequence[str] | None = None,
    trees: Sequence[TreeArrays] | None = None,
) -> PixelForest:
    """Wrap a fitted scikit-learn forest.

    Parameters
    ----------
    rf
        A fitted ``RandomForestClassifier`` or ``ExtraTreesClassifier`` of one output. Integer classes are kept as label values;
        other classes become 1..K and give the names.
    spec
        Encoder of its features, if forestbridge made them.
    names, colours
        One per class; by default "class <value>" and a fixed cycle of colours.
    trees
        In place of its own trees.

    Raises
    ------
    ForestError
        If it is not such a forest, is not fitted, or its number of features is not the spec's; if it was grown by
        scikit-learn-intelex and comes without `trees`.
    ValueError
        If the number of names or colours is not the number of classes.
    """
    from sklearn import __version__ as sklearn_version

    found = getattr(rf, "estimators_", None)
    if (
        not found
        or not all(hasattr(t, "tree_") and hasattr(t, "classes_") for t in found)
        or getattr(rf, "n_outputs_", 0) != 1
    ):
        raise ForestError(
            f"expected a fitted RandomForestClassifier or ExtraTreesClassifier of one output, found {type(rf).__name__}; fit it first"
        )
    if trees is None and type(rf).__module__.startswith(("sklearnex", "daal4py")):
        raise ForestError(
            "expected trees that keep the class fractions of their leaves, found a forest of scikit-learn-intelex, whose trees keep "
            "the most frequent class only, so that they would answer otherwise than the forest itself; fit it with scikit-learn, or "
            "train with forestbridge (train --engine sklearnex)"
        )
    if spec is not None and spec.n_features != rf.n_features_in_:
        raise ForestError(
            f"expected a forest over the {spec.n_features} features of {spec}, found one over {rf.n_features_in_}"
        )
    integer = np.issubdtype(np.asarray(rf.classes_).dtype, np.integer) and min(rf.classes_) >= 0
    classes = tuple(int(c) for c in rf.classes_) if integer else tuple(range(1, len(rf.classes_) + 1))
    if names is None and not integer:
        names = [str(c) for c in rf.classes_]
    trees = trees or [tree_arrays(t) for t in found]
    versions = {"scikit-learn": sklearn_version}
    n_features = int(rf.n_features_in_)
    return forest_of_trees(trees, classes, spec, names=names, colours=colours, versions=versions, n_features=n_features)


def forest_of_trees(
    trees: Sequence[TreeArrays],
    classes: Sequence[int],
    spec: EncoderSpec | None,
    *,
    names: Sequence[str] | None = None,
    colours: Sequence[str] | None = None,
    versions: Mapping[str, str],
    n_features: int | None = None,
) -> PixelForest:
    """Put trees together to a forest.

    Parameters
    ----------
    classes
        Label value of each column of the trees' values.
    names, colours
        One per class; by default "class <value>" and a fixed cycle of colours.
    n_features
        That of the spec by default.

    Raises
    ------
    ValueError
        If the number of names or colours is not the number of classes.
    """
    from forestbridge.labels import DEFAULT_COLOURS

    if names is None:
        names = [f"class {c}" for c in classes]
    if colours is None:
        colours = [DEFAULT_COLOURS[i % len(DEFAULT_COLOURS)] for i in range(len(classes))]
    if len(names) != len(classes) or len(colours) != len(classes):
        raise ValueError(
            f"expected {len(classes)} names and colours, one for each of the classes {tuple(classes)}, found {list(names)} and "
            f"{list(colours)}"
        )
    if n_features is None:
        assert spec is not None
        n_features = spec.n_features
    parts, node, leaf = [], 0, 0
    for tree in trees:
        parts.append(_renumber(tree, first_node=node, first_leaf=leaf))
        node, leaf = node + len(parts[-1][0]), leaf + len(parts[-1][3])
    feature, threshold, left, leaves = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return PixelForest(
        feature=feature,
        threshold=threshold,
        left=left,
        roots=np.cumsum([0] + [len(p[0]) for p in parts[:-1]], dtype=np.int32),
        leaves=leaves,
        n_features=n_features,
        classes=tuple(classes),
        names=tuple(names),
        colours=tuple(colours),
        spec=spec,
        training={},
        versions=versions,
    )


def tree_arrays(tree: Any) -> TreeArrays:
    """Return the arrays of a fitted scikit-learn tree."""
    t = tree.tree_
    return TreeArrays(t.children_left, t.children_right, t.feature, t.threshold, t.value[:, 0, :])


def _renumber(
    tree: TreeArrays, *, first_node: int, first_leaf: int
) -> tuple[NDArray[np.int32], NDArray[np.float32], NDArray[np.int32], NDArray[np.float32]]:
    """Return feature, threshold, left and leaves of one tree, level by level, so that siblings stand side by side."""
    levels = [np.zeros(1, np.intp)]
    while len(parents := levels[-1][tree.children_left[levels[-1]] >= 0]):
        levels.append(
            np.stack([tree.children_left[parents], tree.children_right[parents]], axis=1).ravel()
        )  # (2·P,) left, right, ...
    old = np.concatenate(levels)
    new = np.empty(len(tree.feature), np.int32)
    new[old] = np.arange(len(old)) + first_node
    split = tree.children_left[old] >= 0
    left = np.empty(len(old), np.int32)
    left[split] = new[tree.children_left[old[split]]]
    left[~split] = np.arange(np.count_nonzero(~split)) + first_leaf
    leaves = tree.value[old[~split]]  # (leaves, K)
    return (
        np.where(split, tree.feature[old], -1).astype(np.int32),
        np.where(split, floor_float32(tree.threshold[old]), np.float32(0)),
        left,
        (leaves / leaves.sum(axis=1, keepdims=True)).astype(np.float32),
    )


def floor_float32(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 ≤ each threshold: for float32 x, x ≤ threshold holds for both or for neither."""
    rounded = threshold.astype(np.float32)
    return np.where(rounded > threshold, np.nextafter(rounded, np.float32(-np.inf)), rounded)
