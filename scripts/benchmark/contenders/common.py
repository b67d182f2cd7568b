"""What contenders of our own environment share: the inputs, and the forest that all of them predict with."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn import __version__ as sklearn_version
from sklearn.ensemble import RandomForestClassifier

THREADS = 2
TREES = 100


def load(folder: Path, *names: str) -> list[NDArray]:
    """Return arrays by name."""
    return [np.load(folder / f"{name}.npy") for name in names]


def labelled(folder: Path) -> tuple[NDArray, NDArray, NDArray]:
    """Return y, x and class of the labelled pixels."""
    y, x, k = load(folder, "scribble_y", "scribble_x", "scribble_class")
    return y, x, k


def fit(rows: NDArray[np.float32], classes: NDArray) -> RandomForestClassifier:
    """Return scikit-learn's forest of (N, F) features, always the same: 100 trees, all else as scikit-learn has it."""
    return RandomForestClassifier(TREES, n_jobs=THREADS, random_state=0).fit(rows, classes)


def interpolated(cells: NDArray, size: int) -> NDArray[np.float32]:
    """Return (F, Y, X) float32: cells interpolated bilinearly to a square of `size` pixels, by torch."""
    import torch

    torch.set_num_threads(THREADS)
    maps = torch.from_numpy(cells.astype(np.float32))[None]
    return torch.nn.functional.interpolate(maps, size=(size, size), mode="bilinear")[0].numpy()


def session(path: Path):
    """Return an onnxruntime session on as many threads as all others have."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def versions() -> dict[str, str]:
    """Return the version of scikit-learn."""
    return {"scikit-learn": sklearn_version}


def grains(folder: Path) -> NDArray[np.bool_]:
    """Return a (Y, X) bool mask with many regions and rough borders: where the blurred image is brighter than the light around."""
    from scipy import ndimage

    [image] = load(folder, "image")
    blurred = ndimage.gaussian_filter(image.astype(np.float32), 2)
    return blurred > ndimage.gaussian_filter(blurred, 16)
