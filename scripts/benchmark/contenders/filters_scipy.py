"""ilastik's 49 features with scipy.ndimage.correlate1d over the whole image; passes that filters share are computed once."""

import sys
from pathlib import Path

import numpy as np
import scipy
from common import load

import forestbridge as fb

sys.path.append(str(Path(__file__).parents[3] / "tests"))
import scipy_filters


def prepare(folder):
    """Return the image, (1, Y, X) float32."""
    return load(folder, "image")[0][None].astype(np.float32)


def run(image):
    """Return the features, (49, Y, X) float32."""
    core = tuple(slice(0, n) for n in image.shape[1:])
    return scipy_filters.encode(fb.open_encoder("filters"), image, core)


def versions():
    """Return the version of scipy."""
    return {"scipy": scipy.__version__}
