"""onnxruntime on 256 interpolated features, which are in memory already: forestbridge's own ONNX export of the forest."""

import numpy as np
import onnxruntime
from common import fit, interpolated, labelled, load, session

import forestbridge as fb
from forestbridge.graphs import export_forest_onnx


def prepare(folder):
    """Return the (1, 256, Y, X) float32 features and the session."""
    cells, truth = load(folder, "embedding", "truth")
    y, x, k = labelled(folder)
    planes = interpolated(cells, len(truth))
    forest = fb.forest_from_sklearn(fit(np.ascontiguousarray(planes[:, y, x].T), k))
    path = folder / "forest.onnx"
    path.unlink(missing_ok=True)
    export_forest_onnx(forest, path)
    return planes[None], session(path)


def run(state):
    """Return the probabilities, (K, Y, X) float32."""
    planes, opened = state
    return opened.run(None, {"features": planes})[0][0]


def versions():
    """Return the version of onnxruntime."""
    return {"onnxruntime": onnxruntime.__version__}
