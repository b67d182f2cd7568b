"""vigra's random forests in HDF5: the trees of all worker forests of a project in, the node arrays of a `PixelForest` out, and back.

A forest is a group with `_options`, `_ext_param` and the trees `Tree_0`, `Tree_1`, ... (vigra `random_forest_hdf5_impex.hxx`, version
0.1). A tree is two arrays (`rf_nodeproxy.hxx`):

    topology    int32: number of features, number of classes, then nodes; the root is at 2
                split  0, p, left, right, column      left and right are places in topology
                leaf   0x40000000, p
    parameters  float64: a split has weight, threshold from p on; a leaf has weight, and one fraction for each class

A row goes left iff its feature is below the threshold, a float32 below a double. Thresholds of a `PixelForest` are float32 with ≤, so
the largest float32 below the threshold decides alike; on the way back it is the next larger float32.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import NDArray

from forestbridge.errors import ProjectError
from forestbridge.image.hdf5_nodes import Node

if TYPE_CHECKING:
    import h5py

VERSION = 0.1
LEAF = 0x40000000
ROOT = 2
MAX_TREE = 2**27
"""Largest array of a tree."""

SPLIT_NAMES = {1: "hyperplane", 2: "hypersphere"}

FLOAT32 = np.finfo(np.float32)

PROBABILITY_SLACK = 1e-5
"""How far the fractions of a leaf may lie from 1 in all; a forest file holds no others."""


class TreeNodes(NamedTuple):
    """Nodes level by level, siblings side by side after their parent.

    Attributes
    ----------
    column
        (N,) int32, -1 for a leaf.
    threshold
        (N,) float32: left iff the feature is ≤ it.
    left
        (N,) int32: the left child in this tree; of a leaf its row in `leaves`.
    leaves
        (L, K) float32.
    """

    column: NDArray[np.int32]
    threshold: NDArray[np.float32]
    left: NDArray[np.int32]
    leaves: NDArray[np.float32]


class VigraForest(NamedTuple):
    """All trees of a project's classifier, still in its own columns and classes.

    Attributes
    ----------
    trees
        Of all worker forests, one after the other.
    n_columns
        Number of features.
    labels
        The label value of each class, ascending.
    """

    trees: tuple[TreeNodes, ...]
    n_columns: int
    labels: tuple[int, ...]


def read_forests(group: Node) -> VigraForest:
    """Read all worker forests of a classifier.

    Parameters
    ----------
    group
        ``ClassifierForests`` of a project.

    Raises
    ------
    ProjectError
        If there is none, they differ in features or classes, are not classifiers of one column per split, or a tree is no tree.
    """
    names = group.members("Forest")
    forests = [_read_forest(group.node(name), group.file) for name in names]
    if not forests:
        raise ProjectError(
            f"{group.file}: expected vigra forests in {group.name}, found none; train in ilastik with its own random forest and save"
        )
    kinds = {(forest.n_columns, forest.labels) for forest in forests}
    if len(kinds) > 1:
        raise ProjectError(
            f"{group.file}: expected worker forests over the same features and classes, found {sorted(kinds)}; train in ilastik again"
        )
    return VigraForest(tuple(t for forest in forests for t in forest.trees), forests[0].n_columns, forests[0].labels)


def _read_forest(node: Node | None, file: str) -> VigraForest:
    assert node is not None  # it was listed
    version = node.attribute_number("vigra_random_forest_version", VERSION)
    if version > VERSION:
        raise ProjectError(
            f"{file}: expected vigra forests of version {VERSION}, found {version}; update forestbridge to read it"
        )
    if node.scalar("_options/predict_weighted_", 0):
        raise ProjectError(
            f"{file}: expected trees that count alike, found a forest whose leaves vote by their pixels (predict_weighted_), which "
            "ilastik never writes; train in ilastik again"
        )
    n_columns, n_classes = (int(node.scalar(f"_ext_param/{key}")) for key in ("column_count_", "class_count_"))
    labels = tuple(int(v) for v in node.array("_ext_param/labels", kinds="iuf", ndim=1, most=2**16))
    if len(labels) != n_classes or n_classes < 1 or list(labels) != sorted(set(labels)):
        raise ProjectError(
            f"{file}: expected {n_classes} ascending label values in {node.name}, found {list(labels)[:20]}; train in ilastik again"
        )
    names = node.members("Tree_")
    expected = int(node.scalar("_options/tree_count_"))
    if len(names) != expected or not names:
        raise ProjectError(
            f"{file}: expected {expected} trees in {node.name}, found {len(names)}; the project is damaged, train in ilastik again"
        )
    trees = []
    for name in names:
        topology = node.array(f"{name}/topology", kinds="i", ndim=1, most=MAX_TREE)
        parameters = node.array(f"{name}/parameters", kinds="f", ndim=1, most=MAX_TREE)
        trees.append(_tree(topology, parameters, n_columns, n_classes, f"{file}: {node.name}/{name}"))
    return VigraForest(tuple(trees), n_columns, labels)


def _tree(
    topology: NDArray[np.integer], parameters: NDArray[np.floating], n_columns: int, n_classes: int, where: str
) -> TreeNodes:
    """Return the nodes of a tree, checked: every address inside the arrays, every node reached once."""

    def require(good: bool, expected: str) -> None:
        if not good:
            raise ProjectError(
                f"{where}: expected {expected}, found another structure; the project is damaged or was made to do harm: train in "
                "ilastik again"
            )

    topology, parameters = topology.astype(np.int64), parameters.astype(np.float64)
    n = len(topology)
    require(n >= ROOT + 2, "a tree with a root")
    require(
        topology[0] == n_columns and topology[1] == n_classes,
        f"a tree over {n_columns} features and {n_classes} classes",
    )
    levels, reached = [np.array([ROOT])], 0
    while len(places := levels[-1]):
        reached += len(places)
        require(reached <= n // 2, "each node to be reached once")  # a node has two or more places
        require(bool(((places >= ROOT) & (places + 2 <= n)).all()), "nodes inside the tree")
        splits = places[topology[places] != LEAF]
        kinds = topology[splits]
        for kind, name in SPLIT_NAMES.items():
            require(not (kinds == kind).any(), f"splits on one feature each, no {name}")
        require(bool((kinds == 0).all()), "splits and leaves")
        require(bool((splits + 5 <= n).all()), "nodes inside the tree")
        levels.append(np.stack([topology[splits + 2], topology[splits + 3]], axis=1).ravel())  # (2·S,) left, right, ...
    place = np.concatenate(levels)  # (N,)
    require(len(np.unique(place)) == len(place), "each node to be reached once")
    is_split = topology[place] != LEAF
    split, leaf = place[is_split], place[~is_split]
    column = topology[split + 4]
    require(bool(((column >= 0) & (column < n_columns)).all()), f"columns from 0 to {n_columns - 1}")
    at, of_leaf = topology[split + 1], topology[leaf + 1]
    require(bool(((at >= 0) & (at + 2 <= len(parameters))).all()), "thresholds inside the parameters")
    require(bool(((of_leaf >= 0) & (of_leaf + 1 + n_classes <= len(parameters))).all()), "leaves inside the parameters")
    thresholds = parameters[at + 1]
    require(bool((np.abs(thresholds) <= FLOAT32.max).all()), "thresholds in the range of float32")
    fractions = parameters[of_leaf[:, None] + 1 + np.arange(n_classes)]  # (L, K)
    total = fractions.sum(axis=1)
    require(
        bool(
            np.isfinite(fractions).all() and (fractions >= 0).all() and (np.abs(total - 1) <= PROBABILITY_SLACK).all()
        ),
        "leaves of fractions that sum to 1",
    )
    left = np.empty(len(place), np.int32)
    left[is_split] = 1 + 2 * np.arange(len(split))  # level by level, children stand in the order of their parents
    left[~is_split] = np.arange(len(leaf))
    result = np.full(len(place), -1, np.int32)
    result[is_split] = column
    limit = np.zeros(len(place), np.float32)
    limit[is_split] = below_float32(thresholds)
    return TreeNodes(result, limit, left, fractions.astype(np.float32))


def below_float32(threshold: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 below each threshold: for float32 x, x < threshold iff x ≤ result."""
    rounded = threshold.astype(np.float32)
    return np.where(rounded < threshold, rounded, np.nextafter(rounded, np.float32(-np.inf))).astype(np.float32)


def above_float32(threshold: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the next larger float32 as a double: for float32 x, x ≤ threshold iff x < result."""
    return np.nextafter(threshold, np.float32(np.inf)).astype(np.float64)


def write_forest(group: "h5py.Group", trees: Sequence[TreeNodes], *, n_columns: int, labels: Sequence[int]) -> None:
    """Write one worker forest into an empty group.

    Parameters
    ----------
    trees
        With as many classes as `labels`.
    n_columns
        Number of features.
    labels
        Label value of each class, ascending.
    """
    n_classes = len(labels)
    group.attrs["vigra_random_forest_version"] = np.array([VERSION])
    options = {
        "training_set_proportion_": 1.0,
        "training_set_size_": 0.0,
        "training_set_func_": 0.0,
        "training_set_calc_switch_": 1.0,  # RF_PROPORTIONAL
        "sample_with_replacement_": 1.0,
        "stratification_method_": 3.0,  # RF_NONE
        "mtry_": 0.0,
        "mtry_func_": 0.0,
        "mtry_switch_": 6.0,  # RF_SQRT
        "tree_count_": float(len(trees)),
        "min_split_node_size_": 1.0,
        "predict_weighted_": 0.0,
        "prepare_online_learning_": 0.0,
    }
    problem = {
        "column_count_": float(n_columns),
        "class_count_": float(n_classes),
        "row_count_": 0.0,
        "actual_mtry_": float(max(1, int(np.sqrt(n_columns)))),
        "actual_msample_": 0.0,
        "problem_type_": 1.0,  # CLASSIFICATION
        "is_weighted_": 1.0,
        "used_": 1.0,
        "precision_": 0.0,
        "response_size_": 1.0,
    }
    for name, values in (("_options", options), ("_ext_param", problem)):
        for key, value in values.items():
            group[f"{name}/{key}"] = np.array([value])
    group["_ext_param/class_weights_"] = np.ones(n_classes)
    group["_ext_param/labels"] = np.asarray(labels, np.uint32)
    digits = len(str(len(trees) - 1))
    for number, tree in enumerate(trees):
        topology, parameters = _arrays(tree, n_columns, n_classes)
        group[f"Tree_{number:0{digits}}/topology"] = topology
        group[f"Tree_{number:0{digits}}/parameters"] = parameters


def _arrays(tree: TreeNodes, n_columns: int, n_classes: int) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """Return topology and parameters of a tree; nodes stand in its own order."""
    is_split = tree.column >= 0
    sizes, lengths = np.where(is_split, 5, 2), np.where(is_split, 2, 1 + n_classes)
    place = ROOT + np.cumsum(sizes) - sizes  # (N,) where each node begins
    at = np.cumsum(lengths) - lengths
    topology = np.empty(ROOT + int(sizes.sum()), np.int32)
    parameters = np.ones(int(lengths.sum()))  # the weights are 1
    topology[:ROOT] = n_columns, n_classes
    split, leaf = np.flatnonzero(is_split), np.flatnonzero(~is_split)
    topology[place[split]], topology[place[leaf]] = 0, LEAF
    topology[place + 1] = at
    topology[place[split] + 2] = place[tree.left[split]]
    topology[place[split] + 3] = place[tree.left[split] + 1]
    topology[place[split] + 4] = tree.column[split]
    parameters[at[split] + 1] = above_float32(tree.threshold[split])
    parameters[at[leaf][:, None] + 1 + np.arange(n_classes)] = tree.leaves[tree.left[leaf]]
    return topology, parameters
