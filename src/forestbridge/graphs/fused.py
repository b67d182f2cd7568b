"""Filter bank and forest in one ONNX graph: raw intensities (b, C, ...) in, class probabilities (b, K, ...) out."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from forestbridge.encoders.filters import FilterBank, filter_bank_from_spec
from forestbridge.errors import ForestError
from forestbridge.forest import PixelForest
from forestbridge.graphs.builder import GraphBuilder
from forestbridge.graphs.deviation import Deviation, measure_fused, onnx_runner
from forestbridge.graphs.filters import add_filters, image_shape
from forestbridge.graphs.forest import add_forest
from forestbridge.prune import drop_unused_filters


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
    used_bank, pruned = drop_unused_filters(bank, forest)
    ndim = len(bank.spec.axes)
    graph = GraphBuilder("fused")
    raw = graph.input("raw", image_shape(bank.spec.channels, bank.spec.axes))
    features = add_filters(graph, raw, used_bank.filters, channels=bank.spec.channels, ndim=ndim)
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
