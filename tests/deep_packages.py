"""A fused package over the real cyto3, what it was made from, and what is inside."""

import zipfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray
from skimage import data

from deep_weights import cyto3_file
from forestbridge.encoders.deep import DeepEncoder, open_deep_encoder
from forestbridge.extract import extract
from forestbridge.forest import PixelForest
from forestbridge.package import CheckReport, write_package
from forestbridge.train import train

PICTURE = data.cell()[311:439, 363:491]
"""(128, 128) bytes: a round cell; four cores of 64."""


class Written(NamedTuple):
    """A package, and what it was made from."""

    path: Path
    report: CheckReport
    encoder: DeepEncoder
    forest: PixelForest
    store: Path | None = None

    def member(self, name: str) -> bytes:
        """Return a file of the zip."""
        with zipfile.ZipFile(self.path) as archive:
            return archive.read(name)

    @property
    def rdf(self) -> dict[str, Any]:
        """The description."""
        return yaml.safe_load(self.member("rdf.yaml"))


def painted() -> NDArray[np.uint8]:
    """Return strokes on the picture: 1 around the cell, 2 in it, 3 on its rim."""
    y, x = np.mgrid[:128, :128] - 64
    radius = np.hypot(y, x)
    labels = np.zeros((128, 128), np.uint8)
    labels[(radius > 80) & (y % 8 == 0)] = 1
    labels[(radius < 40) & (y % 8 == 0)] = 2
    labels[(radius > 60) & (radius < 66) & (y % 8 == 0)] = 3
    return labels


def write_cyto3_package(folder: Path) -> Written:
    """Extract a store, train on it, and write the fused package with both formats."""
    encoder = open_deep_encoder("cellpose_cyto3", weights=cyto3_file(), low=[0], high=[255], tile=192)
    store = extract(PICTURE, encoder, folder / "a.features.ome.zarr")
    forest = train([(store, painted())], n_trees=20, seed=0, engine="sklearn")
    report = write_package(folder / "cyto3.zip", forest, image=PICTURE, encoder=encoder)
    return Written(folder / "cyto3.zip", report, encoder, forest, folder / "a.features.ome.zarr")
