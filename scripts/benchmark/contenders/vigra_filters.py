"""ilastik's 49 features in 2D, computed with vigra's filters (what ilastik did before it had fastfilters).

A feature at scale s: the image is smoothed with √(s² - 1) and window 3.5 (with s where s ≤ 1), then filtered with
min(s, 1) and window 2. The smoothed images and then the filters are computed in two threads, as many as ilastik has on
two cores; vigra releases the GIL. ilastik smooths one scale after the other, which is slower on one block.
"""

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np

SCALES = (0.3, 0.7, 1.0, 1.6, 3.5, 5.0, 10.0)
PRESMOOTHING_WINDOW, WINDOW = 3.5, 2.0
THREADS = 2


def selection(filters, structure_tensor):
    """Return ilastik's default selection in its order.

    Parameters
    ----------
    filters
        The module with the filters: vigra.filters or fastfilters; their functions have the same names.
    structure_tensor
        Its function of an image and a sigma: the two modules disagree about the order of the two scales.

    Returns
    -------
    jobs
        [(function of an image and a sigma, scale, number of outputs), ...]: 37 with 49 outputs.
    """

    def smoothing(image, sigma):
        return filters.gaussianSmoothing(image, sigma, window_size=WINDOW)

    def laplacian(image, sigma):
        return filters.laplacianOfGaussian(image, sigma, window_size=WINDOW)

    def gradient(image, sigma):
        return filters.gaussianGradientMagnitude(image, sigma, window_size=WINDOW)

    def difference(image, sigma):
        return smoothing(image, sigma) - smoothing(image, 0.66 * sigma)

    def hessian(image, sigma):
        return filters.hessianOfGaussianEigenvalues(image, sigma, window_size=WINDOW)

    jobs = [(smoothing, s, 1) for s in SCALES]
    for function, outputs in [(laplacian, 1), (gradient, 1), (difference, 1), (structure_tensor, 2), (hessian, 2)]:
        jobs += [(function, s, outputs) for s in SCALES[1:]]
    return jobs


def compute(image, out, smooth, jobs):
    """Compute the features of an image into `out`.

    Parameters
    ----------
    image
        (Y, X) float32, of the kind of array that the filters take.
    out
        (49, Y, X) float32, of any memory layout.
    smooth
        Function of an image, a sigma and a window.
    jobs
        From `selection`.
    """

    def presmooth(scale):
        return smooth(image, math.sqrt(scale * scale - 1) if scale > 1 else scale, PRESMOOTHING_WINDOW)

    def fill(job, at):
        function, scale, outputs = job
        result = np.asarray(function(presmoothed[scale], min(scale, 1.0)))
        out[at : at + outputs] = result if outputs == 1 else np.moveaxis(result, -1, 0)  # (Y, X, 2) -> (2, Y, X)

    with ThreadPoolExecutor(THREADS) as pool:
        presmoothed = dict(zip(SCALES, pool.map(presmooth, SCALES)))
        starts = np.cumsum([0] + [outputs for _, _, outputs in jobs])
        list(pool.map(fill, jobs, starts))


def vigra_features(image, out):
    """Compute the features of a (Y, X) uint8 image with vigra into `out`, (49, Y, X) float32."""
    import vigra

    def smooth(array, sigma, window):
        return vigra.filters.gaussianSmoothing(array, sigma, window_size=window)

    def structure_tensor(array, sigma):
        return vigra.filters.structureTensorEigenvalues(array, 0.5 * sigma, sigma, window_size=WINDOW)

    tagged = vigra.taggedView(image.astype(np.float32), "yx")
    compute(tagged, out, smooth, selection(vigra.filters, structure_tensor))


def prepare(folder):
    """Return the image, (Y, X) uint8."""
    return np.load(folder / "image.npy")


def run(image):
    """Return the features, (49, Y, X) float32."""
    features = np.empty((49, *image.shape), np.float32)
    vigra_features(image, features)
    return features


def versions():
    """Return the version of vigra."""
    import vigra

    return {"vigra": vigra.version}
