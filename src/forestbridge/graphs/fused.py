"""Filter bank and forest in one ONNX graph: raw intensities (b, C, ...) in, class probabilities (b, K, ...) out."""

from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.filter_kernels import Filter
from forestbridge.encoders.filters import FilterBank, filter_bank_from_spec
from forestbridge.errors import ForestError
from forestbridge.forest import PixelForest
from forestbridge.graphs.builder import GraphBuilder
from forestbridge.graphs.deviation import Deviation, measure_fused, onnx_runner
from forestbridge.graphs.filters import add_filters, image_shape
from forestbridge.graphs.forest import add_forest


def export_fused_onnx(forest: PixelForest, path: str | Path, *, image: NDArray[np.float32] | None = None) -> Deviation:
    """Write a forest together with its filter bank; input ``raw``, output ``probabilities``.

    Parameters
    ----------
    image
        (C, y, x) or (C, z, y, x) float32 raw intensities to measure the deviation on; by default a synthetic image.

    Returns
    -------
    deviation
        From the filter bank and the engine.

    Raises
    ------
    ForestError
        If the forest was not trained on the filter bank.
    OutputExistsError, ResourceError
        If the path exists, or its folder cannot be written.
    """
    bank = bank_of(forest)
    filters, pruned = drop_unused_filters(bank, forest)
    ndim = len(bank.spec.axes)
    graph = GraphBuilder("fused")
    raw = graph.input("raw", image_shape(bank.spec.channels, bank.spec.axes))
    features = add_filters(graph, raw, filters, channels=bank.spec.channels, ndim=ndim)
    add_forest(graph, features, pruned, ndim=ndim, output="probabilities")
    graph.output("probabilities", image_shape(forest.n_classes, bank.spec.axes))
    graph.write(path)
    return measure_fused(forest, onnx_runner(path), image=image)


def bank_of(forest: PixelForest) -> FilterBank:
    """Return the filter bank a forest was trained on.

    Raises
    ------
    ForestError
        If it was trained on something else.
    """
    if forest.spec is None or forest.spec.name != "filters":
        raise ForestError(
            f"expected a forest over the features of filters, found one over {forest.spec or 'features without an encoder'}; "
            "export the forest alone"
        )
    return filter_bank_from_spec(forest.spec)


def drop_unused_filters(bank: FilterBank, forest: PixelForest) -> tuple[tuple[Filter, ...], PixelForest]:
    """Return the filters that the forest looks at (at least one), and the forest over their features alone."""
    ndim, channels = len(bank.spec.axes), bank.spec.channels
    used = set(forest.used_features.tolist())
    filters, kept, start = [], [], 0
    for f in bank.filters:
        columns = range(start, start + channels * f.n_outputs(ndim))
        start = columns.stop
        if used.intersection(columns):
            filters.append(f)
            kept.extend(columns)
    if not filters:  # every tree is one leaf; the graph still needs an image to know the size of its answer
        filters, kept = [bank.filters[0]], list(range(channels * bank.filters[0].n_outputs(ndim)))
    column = np.full(forest.n_features, -1, np.int32)
    column[kept] = np.arange(len(kept), dtype=np.int32)
    feature = np.where(forest.feature >= 0, column[forest.feature], np.int32(-1))
    return tuple(filters), replace(forest, feature=feature, n_features=len(kept), spec=None)
