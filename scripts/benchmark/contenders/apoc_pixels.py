"""apoc's PixelClassifier through OpenCL on the CPU (pocl): its features, its forest of 100 trees of depth 10, labels.

37 maps, the nearest to ilastik's that its filters give at ilastik's scales: smoothing at all 7, and at 6 each: difference of
Gaussians (0.9 s and 1.1 s), Laplace box and Sobel of the smoothed image, and its two Hessian eigenvalues. No structure tensor.
The forest is scikit-learn's, translated to one OpenCL kernel; compiling it in the first prediction is not timed.
"""

import importlib.metadata
import sys
import time

import apoc
import numpy as np
import pyclesperanto_prototype as cle

SCALES = ("0.7", "1.0", "1.6", "3.5", "5.0", "10.0")
OPERATIONS = (
    "gaussian_blur",
    "difference_of_gaussian",
    "laplace_box_of_gaussian_blur",
    "sobel_of_gaussian_blur",
    "large_hessian_eigenvalue_of_gaussian_blur",
    "small_hessian_eigenvalue_of_gaussian_blur",
)
FEATURES = " ".join(["gaussian_blur=0.3"] + [f"{operation}={scale}" for operation in OPERATIONS for scale in SCALES])
DEPTH = 10


def prepare(folder):
    """Train on the scribbles, compile by a first prediction and return the image, (Y, X) uint8, and the classifier."""
    image, y, x, classes = (
        np.load(folder / f"{n}.npy") for n in ("image", "scribble_y", "scribble_x", "scribble_class")
    )
    scribbles = np.zeros(image.shape, np.uint8)
    scribbles[y, x] = classes + 1  # 0 is not labelled
    cle.select_device(dev_type="cpu")
    path = folder / "apoc.cl"
    path.unlink(missing_ok=True)  # else it would be loaded
    classifier = apoc.PixelClassifier(str(path), max_depth=DEPTH, num_ensembles=100)
    classifier.train(FEATURES, scribbles, image)
    start = time.perf_counter()
    run((image, classifier))
    nodes = sum(tree.tree_.node_count for tree in classifier.classifier.estimators_)
    print(f"{cle.get_device().name}; {nodes} nodes; first run {time.perf_counter() - start:.1f} s", file=sys.stderr)
    return image, classifier


def run(state):
    """Return the labels, (Y, X) uint8, 0..K-1: the image is sent to the device and the labels are fetched from it."""
    image, classifier = state
    return (cle.pull(classifier.predict(image)) - 1).astype(np.uint8)


def versions():
    """Return the versions of what it runs through."""
    return {p: importlib.metadata.version(p) for p in ("apoc", "pyclesperanto-prototype", "pyopencl")}
