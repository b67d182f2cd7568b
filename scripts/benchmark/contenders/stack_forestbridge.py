"""forestbridge on a stack of 16 planes, 512 × 512 each: labels."""

import numpy as np
from common import fit, labelled, load

import forestbridge as fb


def prepare(folder):
    """Return the stack, an `Image` of (16, 512, 512) uint8, and the forest."""
    image, bank = load(folder, "image", "bank")
    y, x, k = labelled(folder)
    rf = fit(np.ascontiguousarray(bank[:, y, x].T), k)
    planes = np.stack([np.roll(image, 37 * z, axis=1)[:512, :512] for z in range(16)])
    state = fb.as_image(planes, axes="ZYX"), fb.forest_from_sklearn(rf, fb.open_encoder("filters").spec)
    run(state)  # compiles
    return state


def run(state):
    """Return the labels, (16, 512, 512) uint8."""
    image, forest = state
    return fb.predict(image, forest, kind="labels")
