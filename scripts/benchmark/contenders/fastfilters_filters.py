"""ilastik's 49 features in 2D, computed with fastfilters as ilastik does.

The same two steps in the same two threads as with vigra's filters; fastfilters releases the GIL too.
"""

import fastfilters
import numpy as np
import vigra_filters
from vigra_filters import prepare as prepare


def run(image):
    """Return the features of a (Y, X) uint8 image, (49, Y, X) float32."""

    def smooth(array, sigma, window):
        return fastfilters.gaussianSmoothing(array, sigma, window_size=window)

    def structure_tensor(
        array, sigma
    ):  # ilastik's arguments: the module takes them in the other order than it names them
        return fastfilters.structureTensorEigenvalues(array, sigma, 0.5 * sigma, window_size=vigra_filters.WINDOW)

    features = np.empty((49, *image.shape), np.float32)
    jobs = vigra_filters.selection(fastfilters, structure_tensor)
    vigra_filters.compute(image.astype(np.float32), features, smooth, jobs)
    return features


def versions():
    """Return the version of fastfilters."""
    return {"fastfilters": fastfilters.__version__}
