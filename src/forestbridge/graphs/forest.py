"""The forest as an ONNX graph: features (b, F, y, x) or (b, F, z, y, x) in, class probabilities (b, K, ...) out."""

from pathlib import Path

import numpy as np

from forestbridge.errors import ForestError
from forestbridge.forest import PixelForest
from forestbridge.graphs.builder import ML_DOMAIN, GraphBuilder
from forestbridge.graphs.deviation import Deviation, measure_forest, onnx_runner
from forestbridge.graphs.filters import image_shape


def export_forest_onnx(forest: PixelForest, path: str | Path) -> Deviation:
    """Write a forest; one input with all features, called after the encoder's map, and the output ``probabilities``.

    Returns
    -------
    deviation
        From the engine, on synthetic features around the forest's thresholds.

    Raises
    ------
    ForestError
        If the forest looks at more than one map, or at one of another stride than 1.
    OutputExistsError, ResourceError
        If the path exists, or its folder cannot be written.
    """
    name, axes = forest_input(forest)
    graph = GraphBuilder("forest")
    features = graph.input(name, image_shape(forest.n_features, axes))
    add_forest(graph, features, forest, ndim=len(axes), output="probabilities")
    graph.output("probabilities", image_shape(forest.n_classes, axes))
    graph.write(path)
    return measure_forest(forest, onnx_runner(path), ndim=len(axes))


def forest_input(forest: PixelForest) -> tuple[str, str]:
    """Return the name and the spatial axes of the input of a forest's own graph; ("features", "yx") without an encoder.

    Raises
    ------
    ForestError
        If the forest looks at more than one map, or at one of another stride than 1.
    """
    if forest.spec is None:
        return "features", "yx"
    maps = forest.spec.maps
    if len(maps) != 1 or maps[0].stride != 1 or forest.spec.dtype != "float32":
        found = ", ".join(f"{m.name} of stride {m.stride:g}" for m in maps)
        raise ForestError(
            f"expected a forest over one float32 map of stride 1, found {forest.spec} with {found} in {forest.spec.dtype}; "
            "export it fused with its encoder"
        )
    return maps[0].name, forest.spec.axes


def add_forest(graph: GraphBuilder, features: str, forest: PixelForest, *, ndim: int, output: str | None = None) -> str:
    """Add a forest to a graph.

    Leaf fractions are summed unscaled and divided by the number of trees at the end: whole numbers stay exact, so that ties
    between classes stay ties. (TreeEnsembleClassifier sums 1/T and breaks them.)

    Parameters
    ----------
    features
        Name of the (b, F, ...) features.
    output
        Name for the result.

    Returns
    -------
    probabilities
        Name of the (b, K, ...) tensor.
    """
    spatial = list(range(2, 2 + ndim))
    last = graph.node("Transpose", features, perm=[0, *spatial, 1])  # (b, ..., F)
    rows = graph.node("Reshape", last, graph.constant(np.array([-1, forest.n_features])))  # (b·pixels, F)
    sums = add_trees(graph, rows, forest)  # (b·pixels, K)
    mean = graph.node("Div", sums, graph.constant(np.array([forest.n_trees], np.float32)))
    zero, one = graph.constant(np.asarray(0, np.float32)), graph.constant(np.asarray(1, np.float32))
    clipped = graph.node("Clip", mean, zero, one)
    outer = graph.node("Slice", graph.node("Shape", last), *(graph.constant(np.array([i])) for i in (0, 1 + ndim)))
    shape = graph.node("Concat", outer, graph.constant(np.array([forest.n_classes])), axis=0)  # b, ..., K
    image = graph.node("Reshape", clipped, shape)
    return graph.node("Transpose", image, perm=[0, 1 + ndim, *(a - 1 for a in spatial)], output=output)


def add_trees(graph: GraphBuilder, rows: str, forest: PixelForest) -> str:
    """Add the trees; return the name of the (rows, K) sums of leaf fractions."""
    node = np.arange(len(forest.feature))
    tree = np.searchsorted(forest.roots, node, side="right") - 1
    number = node - forest.roots[tree]  # within its tree
    split = forest.feature >= 0
    left = np.where(split, forest.left - forest.roots[tree], 0)
    leaf = np.flatnonzero(~split)
    at, target = np.nonzero(forest.leaves[forest.left[leaf]])  # one weight per leaf and class that occurs in it
    return graph.node(
        "TreeEnsembleRegressor",
        rows,
        domain=ML_DOMAIN,
        n_targets=forest.n_classes,
        aggregate_function="SUM",
        post_transform="NONE",
        nodes_treeids=tree.tolist(),
        nodes_nodeids=number.tolist(),
        nodes_modes=np.where(split, "BRANCH_LEQ", "LEAF").tolist(),
        nodes_featureids=np.where(split, forest.feature, 0).tolist(),
        nodes_values=forest.threshold.tolist(),
        nodes_truenodeids=left.tolist(),
        nodes_falsenodeids=np.where(split, left + 1, 0).tolist(),
        nodes_missing_value_tracks_true=[0] * len(node),
        target_treeids=tree[leaf[at]].tolist(),
        target_nodeids=number[leaf[at]].tolist(),
        target_ids=target.tolist(),
        target_weights=forest.leaves[forest.left[leaf[at]], target].tolist(),
    )
