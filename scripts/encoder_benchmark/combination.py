"""Whether a network and the filter bank together do as well as the better of them: `python combination.py` prints JSON.

Two images that ship with scikit-image. `immunohistochemistry` has the scribbles of the demo. For `cell` strokes are drawn inside the three
brightness classes of the smoothed image, away from their borders. Strokes are split at random: forests see some of them, and are judged
on the pixels of the others. The network is Cellpose's cyto3 with its published weights.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from skimage import data, filters, measure

TESTS = Path(__file__).resolve().parents[2] / "tests"
sys.path[:0] = [str(TESTS)]

import forestbridge as fb  # noqa: E402
from deep_weights import cyto3_file  # noqa: E402
from forestbridge.engine import predict  # noqa: E402
from forestbridge.image import Image, as_image  # noqa: E402
from forestbridge.package.recipe import data_file, sample_image  # noqa: E402
from forestbridge.stores import FeatureStore  # noqa: E402

ENCODERS = ("filters", "cellpose_cyto3", "filters+cellpose_cyto3")

SPLITS = 30

STROKES, LENGTH, MARGIN = 30, 25, 6
"""Of each class of `cell`: strokes, pixels of a stroke, and pixels that it keeps off the borders of its class."""


class Picture(NamedTuple):
    """An image, and its strokes as label values (Y, X) and stroke numbers (Y, X), 0 where there is none."""

    name: str
    image: Image
    labels: NDArray[np.int64]
    strokes: NDArray[np.int64]


def tissue() -> Picture:
    """Return the red and the blue of the demo's image, since the network takes two channels; each connected scribble is a stroke."""
    image = as_image(data.immunohistochemistry()[..., [0, 2]], axes="YXC")
    scribbles = fb.read_scribbles(data_file("tissue_scribbles.png"))
    labels = np.zeros((image.sizes["Y"], image.sizes["X"]), np.int64)
    labels[scribbles.points[:, 2], scribbles.points[:, 3]] = scribbles.values
    return Picture("immunohistochemistry", image, labels, measure.label(labels, connectivity=2))


def cell() -> Picture:
    """Return the image of a cell with strokes inside its brightness classes."""
    image = sample_image("cell")
    smooth = filters.gaussian(data.cell().astype(float), 3)
    truth = np.digitize(smooth, filters.threshold_multiotsu(smooth, 3)) + 1
    inner = sum(k * ndimage.binary_erosion(truth == k, iterations=MARGIN) for k in (1, 2, 3))
    labels, strokes = np.zeros((2, *truth.shape), np.int64)
    rng = np.random.default_rng(0)
    for k in (1, 2, 3):
        places, drawn = np.argwhere(inner == k), 0
        while drawn < STROKES:
            angle, start = rng.uniform(0, 2 * np.pi), places[rng.integers(len(places))]
            line = np.round(start + np.arange(LENGTH)[:, None] * (np.sin(angle), np.cos(angle))).astype(int)
            y, x = line[((line >= 0) & (line < truth.shape)).all(axis=1)].T
            if len(y) == LENGTH and (inner[y, x] == k).all():
                drawn += 1
                labels[y, x], strokes[y, x] = k, strokes.max() + 1
    return Picture("cell", image, labels, strokes)


def split(picture: Picture, rng: np.random.Generator) -> tuple[NDArray, NDArray, NDArray]:
    """Return stroke numbers: one of each class, half of each class, and the others, which forests are judged on."""
    few, many, held_out = [], [], []
    for k in np.unique(picture.labels)[1:]:
        own = rng.permutation(np.unique(picture.strokes[picture.labels == k]))
        few.append(own[:1])
        many.append(own[: len(own) // 2])
        held_out.append(own[len(own) // 2 :])
    return np.concatenate(few), np.concatenate(many), np.concatenate(held_out)


def recall(predicted: NDArray, labels: NDArray) -> float:
    """Return the share of pixels that are right, mean of the classes."""
    return float(np.mean([(predicted == k)[labels == k].mean() for k in np.unique(labels)]))


def judge(picture: Picture, store: FeatureStore) -> dict[str, list[float]]:
    """Return the recall of forests on one encoder's features, for each split."""
    found: dict[str, list[float]] = {"few": [], "many": []}
    y, x = np.nonzero(picture.labels)
    rows = store.at(np.stack([np.zeros_like(y), np.zeros_like(y), y, x], axis=1))  # t, z, y, x
    rng = np.random.default_rng(0)  # the same splits for each encoder
    for seed in range(SPLITS):
        few, many, held_out = split(picture, rng)
        judged = np.isin(picture.strokes[y, x], held_out)
        for name, strokes in (("few", few), ("many", many)):
            labels = np.where(np.isin(picture.strokes, strokes), picture.labels, 0)
            forest = fb.train([(store, labels)], seed=seed, engine="sklearn")
            predicted = predict(forest, rows[judged].T).argmax(axis=0) + 1  # the classes are 1, 2 and 3
            found[name].append(recall(predicted, picture.labels[y, x][judged]))
    return found


def recalls(picture: Picture, name: str) -> dict[str, Any]:
    """Return few and many → recalls of forests over an encoder, and its number of features."""
    deep = {"images": [picture.image], "weights": cyto3_file()}
    encoder = fb.open_encoder(name, **deep if name != "filters" else {"channels": picture.image.n_channels})
    with tempfile.TemporaryDirectory() as folder:
        store = fb.extract(picture.image, encoder, Path(folder) / "a.features.ome.zarr")
        return {**judge(picture, store), "features": encoder.spec.n_features}


def main() -> None:
    """Print encoder → few and many → recalls, for each image."""
    pictures = (tissue(), cell())
    print(json.dumps({picture.name: {name: recalls(picture, name) for name in ENCODERS} for picture in pictures}))


if __name__ == "__main__":
    main()
