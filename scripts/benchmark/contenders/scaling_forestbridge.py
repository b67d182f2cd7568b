"""forestbridge from a file to a file: `large.npy` to labels in an OME-TIFF, tile by tile."""

import numpy as np
from common import fit, labelled, load

import forestbridge as fb


def prepare(folder):
    """Return the folder and the forest."""
    image, bank = load(folder, "image", "bank")
    y, x, k = labelled(folder)
    rf = fit(np.ascontiguousarray(bank[:, y, x].T), k)
    forest = fb.forest_from_sklearn(rf, fb.open_encoder("filters").spec)
    fb.predict(image[:64, :64], forest, kind="labels")  # compiles
    return folder, forest


def run(state):
    """Return the size of the file that was written, (1,)."""
    folder, forest = state
    out = fb.predict(
        fb.read_image(folder / "large.npy"), forest, kind="labels", out=folder / "labels.ome.tif", overwrite=True
    )
    return np.array([out.stat().st_size])
