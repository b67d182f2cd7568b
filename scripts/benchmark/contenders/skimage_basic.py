"""scikit-image's multiscale_basic_features: smoothing, edges and two Hessian eigenvalues at 12 scales from 0.7 to 10.

48 maps, the nearest to ilastik's 49 that 4 maps a scale give. They are other features than ilastik's: it computes no
difference of Gaussians and no structure tensor, the edges are Sobel's, and the scales lie in geometric steps.
"""

import numpy as np
import skimage
from skimage.feature import multiscale_basic_features

THREADS = 2


def prepare(folder):
    """Return the image, (Y, X) uint8."""
    return np.load(folder / "image.npy")


def run(image):
    """Return the features, (Y, X, 48) float32."""
    return multiscale_basic_features(image, sigma_min=0.7, sigma_max=10, num_sigma=12, workers=THREADS)


def versions():
    """Return the version of scikit-image."""
    return {"scikit-image": skimage.__version__}
