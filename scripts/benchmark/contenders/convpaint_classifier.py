"""napari-convpaint's classifier stage on given features: its CatBoost (its default), probabilities, labels.

Training and prediction are the methods of its model class; its feature extractor is left out, `bank.npy` stands in for
it. Convpaint always computes probabilities first and takes the most probable class. CatBoost uses all cores.
"""

import importlib.metadata
import os
import sys
import time

import numpy as np

os.environ["QT_QPA_PLATFORM"] = "offscreen"  # the package imports its widget

from napari_convpaint import utils
from napari_convpaint.convpaint_model import ConvpaintModel


def prepare(folder):
    """Train on the scribbles and return the model and the features, (F, 1, Y, X) float32: planes come in stacks."""
    bank, y, x, classes = (np.load(folder / f"{n}.npy") for n in ("bank", "scribble_y", "scribble_x", "scribble_class"))
    bank = bank[:, None]  # (F, Y, X) -> (F, 1, Y, X)
    annotations = np.zeros(bank.shape[1:], np.uint8)
    annotations[0, y, x] = classes + 1
    model = ConvpaintModel(fe_name="gaussian_features")  # the extractor that needs no weights; it is not called
    start = time.perf_counter()
    model._clf_train(*utils.get_features_targets(bank, annotations), use_device="cpu")
    print(f"trained {type(model.classifier).__name__} in {time.perf_counter() - start:.2f} s", file=sys.stderr)
    return model, bank


def run(state):
    """Return the labels, (Y, X) uint8, 0..K-1."""
    model, bank = state
    probabilities = model._clf_predict(bank)  # (K, Y*X) float64
    return model._probas_to_classes(probabilities).reshape(bank.shape[2:]) - 1  # its classes start at 1


def versions():
    """Return the versions of what it runs through."""
    return {package: importlib.metadata.version(package) for package in ("napari-convpaint", "catboost")}
