"""onnxruntime on forestbridge's own ONNX graph of ilastik's 49 features."""

import numpy as np
from common import load, session
from maps_onnxruntime import versions as versions

import forestbridge as fb
from forestbridge.graphs import export_filters_onnx


def prepare(folder):
    """Return the image, (1, 1, Y, X) float32, and the session."""
    path = folder / "filters.onnx"
    path.unlink(missing_ok=True)
    export_filters_onnx(fb.open_encoder("filters").spec, path)
    return load(folder, "image")[0][None, None].astype(np.float32), session(path)


def run(state):
    """Return the features, (49, Y, X) float32."""
    image, opened = state
    return opened.run(None, {"raw": image})[0][0]
