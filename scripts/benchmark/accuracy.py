"""What it costs in accuracy that a tree draws only some of the labelled pixels: forests judged on pictures they have not seen."""

import sys
from typing import NamedTuple

import numpy as np
from skimage.segmentation import expand_labels

import forestbridge as fb

DRAWN = (300, 600, 1000, None)
"""Pixels that a tree draws; None: as many as there are."""

SEEDS = range(3)


class Line(NamedTuple):
    """Accuracy and size of forests for one number of pixels per tree; the default's is marked."""

    drawn: str
    accuracy: dict[str, float]
    nodes: dict[str, float]


def measure_subsampling() -> list[Line]:
    """Train on phantoms that were painted with a broad brush, predict the next one, and compare with the truth."""
    settings = sys.modules["forestbridge.train"]  # the package's name `train` is the function
    default = settings.SUBSAMPLE_TREE, settings.SUBSAMPLE_LEAST
    bank = fb.open_encoder("filters")
    lines = []
    for drawn in DRAWN:
        settings.SUBSAMPLE_TREE, settings.SUBSAMPLE_LEAST = (drawn, 0.0) if drawn else (10**9, 1.0)
        accuracy, nodes = {}, {}
        for classes in (2, 3, 4):
            pictures = [fb.phantom((256, 256), classes=classes, seed=s) for s in (3, 4, 5, 6)]
            found = []
            for picture, other in zip(pictures, pictures[1:] + pictures[:1], strict=True):
                grown = expand_labels(picture.scribbles, 2)
                labels = np.where(grown == picture.truth, grown, 0)
                for seed in SEEDS:
                    forest = fb.train([(picture.image, labels)], encoder=bank, seed=seed, engine="sklearn")
                    right = fb.predict(other.image, forest, kind="labels") == other.truth
                    found.append((right.mean(), len(forest.feature) / forest.n_trees))
            accuracy[f"{classes} classes"], nodes[f"{classes} classes"] = np.mean(found, axis=0)
        mark = " (default)" if drawn == default[0] else ""
        lines.append(Line(f"{drawn or 'all'}{mark}", accuracy, nodes))
    settings.SUBSAMPLE_TREE, settings.SUBSAMPLE_LEAST = default
    return lines
