"""The same forest as a bioimage.io package, run by forestbridge's runner with onnxruntime alone: from the image to labels."""

import numpy as np
from common import THREADS, fit, labelled, load
from maps_onnxruntime import versions as versions

import forestbridge as fb


def prepare(folder):
    """Return the image, (Y, X) uint8, and the open package."""
    image, bank = load(folder, "image", "bank")
    y, x, k = labelled(folder)
    rf = fit(np.ascontiguousarray(bank[:, y, x].T), k)
    path = folder / "package.zip"
    forest = fb.forest_from_sklearn(rf, fb.open_encoder("filters").spec)
    fb.write_package(path, forest, image=image, formats=("onnx",), overwrite=True)
    return image, fb.open_package(path, threads=THREADS)


def run(state):
    """Return the labels, (Y, X) uint8, 0..K-1."""
    image, package = state
    return package.predict(image, kind="labels")
