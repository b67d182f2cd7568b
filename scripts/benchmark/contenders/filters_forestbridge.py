"""forestbridge's filter bank: ilastik's 49 features."""

from common import load

import forestbridge as fb


def prepare(folder):
    """Return the image, (Y, X) uint8."""
    [image] = load(folder, "image")
    run(image)  # compiles
    return image


def run(image):
    """Return the features, (49, Y, X) float32."""
    return fb.features(image, fb.open_encoder("filters"))
